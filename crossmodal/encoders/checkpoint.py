"""The checkpoint folder: a twin encoder on disk, whole and without code.

=================  =====================================================================================
config.json        ``format``, ``family``, ``architecture``, ``preprocessing``, ``tokenizer``, ``text_limit``
                   in tokens, ``dim``, ``temperature`` (``logit_scale``, a logarithm, and ``logit_bias``),
                   ``files`` (those of the tokenizer), and the ``versions`` of the libraries that wrote it
model.safetensors  the state dict of the owner's model, each tensor in its own dtype
...                the tokenizer's files
=================  =====================================================================================

A folder is written whole or not at all. Its fingerprint is a digest of what it holds, so it may be moved.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from crossmodal.encoders.blueprint import Blueprint, TwinModel, fingerprint
from crossmodal.encoders.families import family
from crossmodal.encoders.folder_swap import replace_folder
from crossmodal.encoders.weights import check_safetensors, file_digest
from crossmodal.errors import CrossmodalError, EncoderError
from crossmodal.refusals import storage_errors

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
FORMAT = 1
LIBRARIES = ("crossmodal-retrieval", "torch", "transformers", "open-clip-torch", "timm", "tokenizers")
_KEYS = {
    "family": str,
    "architecture": dict,
    "preprocessing": dict,
    "tokenizer": dict,
    "text_limit": int,
    "dim": int,
    "temperature": dict,
    "files": list,
    "versions": dict,
}


def is_checkpoint(folder: Path) -> bool:
    """Tell whether a folder is a checkpoint of ours, torn or whole; others write a ``config.json``, too."""
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except OSError:
        return False
    except ValueError:
        return (folder / WEIGHTS).exists()  # torn: to read it tells what is wrong
    return isinstance(config, dict) and ("format" in config or "family" in config)


def save_checkpoint(
    model: TwinModel, blueprint: Blueprint, folder: Path, *, also: Callable[[Path], None] | None = None
) -> None:
    """Write a model into a folder, from which ``read_checkpoint`` gives the same embeddings bit for bit.

    What is there is replaced at once when it is an earlier checkpoint, with all that lies in it.

    :param also: writes further files into the new folder, such as a trainer's state.
    :raises EncoderError: when the folder holds something else.
    :raises StorageError: when the disk refuses; then nothing has changed.
    """
    check_replaceable(folder)
    with storage_errors(folder):
        replace_folder(folder, partial(_write, model, blueprint, also))


def read_checkpoint(folder: Path) -> Blueprint:
    """Read a checkpoint folder; its weights are checked for wholeness, and loaded when they are needed.

    :raises EncoderError: when it was written in a newer format, or something in it is missing, torn or does
        not fit.
    """
    folder = folder.absolute()
    config = _read_config(folder)
    check_safetensors(folder / WEIGHTS)
    for name in config["files"]:
        if not (folder / name).is_file():
            raise EncoderError(f"The checkpoint {folder} lacks its file {name}; copy the whole folder again")
    try:
        restored = family(config["family"]).restore(config, folder)
    except CrossmodalError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EncoderError(
            f"{folder / CONFIG} does not fit the family {config['family']!r} "
            f"({type(error).__name__}: {' '.join(str(error).split()):.120}); copy the folder again"
        ) from error
    seen = _fingerprint(folder, config)
    return replace(restored, fingerprint=seen, load=partial(_load, restored, folder, config, seen))


def _load(restored: Blueprint, folder: Path, config: dict[str, Any], seen: str) -> TwinModel:
    """Load the model, unless training has put another one in its place since its fingerprint was taken."""
    if _fingerprint(folder, config) != seen:
        raise EncoderError(f"The checkpoint {folder} has changed since it was opened; open it again")
    return restored.load()


def _fingerprint(folder: Path, config: dict[str, Any]) -> str:
    """Digest what decides the embeddings: weights, tokenizer and configuration, wherever they lie."""
    return fingerprint(
        config={name: value for name, value in config.items() if name != "versions"},
        files={name: file_digest(folder / name) for name in (WEIGHTS, *config["files"])},
    )


def check_replaceable(folder: Path) -> None:
    """Make sure that a checkpoint may be written into a folder.

    :raises EncoderError: when it holds something else.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise EncoderError(f"{folder} is a file; choose a folder for the checkpoint")
    if any(folder.iterdir()):
        try:
            _read_config(folder)
        except EncoderError as error:
            raise EncoderError(
                f"{folder} holds something else than a checkpoint and is left as it is; "
                "choose a new or an empty folder"
            ) from error


def _write(model: TwinModel, blueprint: Blueprint, also: Callable[[Path], None] | None, folder: Path) -> None:
    """Fill a new folder."""
    tokenizer = blueprint.tokenizer.save(folder)
    config = {
        "format": FORMAT,
        "family": blueprint.family,
        "architecture": dict(blueprint.architecture),
        "preprocessing": blueprint.preprocessing.to_dict(),
        "tokenizer": tokenizer,
        "text_limit": blueprint.tokenizer.limit,
        "dim": blueprint.dim,
        "temperature": {name: _number(model, name) for name in ("logit_scale", "logit_bias")},
        "files": sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()),
        "versions": _versions(),
    }
    _write_weights(model, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    if also is not None:
        also(folder)


def _write_weights(model: TwinModel, path: Path) -> None:
    """Write the owner's state dict.

    :raises OSError: where safetensors has an error of its own, as it does for a full disk.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_model

    try:
        save_model(model.owner, str(path))
    except SafetensorError as error:
        raise OSError(str(error)) from error


def _number(model: TwinModel, name: str) -> float | None:
    """Give a parameter of the temperature as a number, where the model has it."""
    value = getattr(model.owner, name, None)
    return None if value is None else float(value.item())


def _read_config(folder: Path) -> dict[str, Any]:
    """Read ``config.json`` and check what every family relies on."""
    path = folder / CONFIG
    try:
        config = json.loads(path.read_bytes())
    except OSError as error:
        raise EncoderError(
            f"{path} cannot be read ({error.strerror}); expected a checkpoint folder"
        ) from error
    except ValueError as error:
        raise EncoderError(f"{path} is torn or no JSON ({error}); copy the checkpoint again") from error
    if not isinstance(config, dict):
        raise EncoderError(
            f"{path} holds a {type(config).__name__}, expected an object with the key 'format'"
        )
    if not isinstance(config.get("format"), int):
        raise EncoderError(f"{path} has no number as 'format'; expected a checkpoint that crossmodal wrote")
    if config["format"] > FORMAT:
        versions = config.get("versions")
        writer = versions.get("crossmodal-retrieval") if isinstance(versions, dict) else None
        raise EncoderError(
            f"{folder} is a checkpoint of format {config['format']}, written by crossmodal-retrieval "
            f"{writer or 'of a newer version'}; this version reads up to format {FORMAT}: "
            "pip install --upgrade crossmodal-retrieval"
        )
    wrong = [name for name, kind in _KEYS.items() if not isinstance(config.get(name), kind)]
    if wrong:
        raise EncoderError(
            f"{path} lacks {', '.join(wrong)}, or holds no such value there; copy the checkpoint again"
        )
    return config


def _versions() -> dict[str, str]:
    """Give the versions of what decides how a checkpoint is read."""
    found = {}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found
