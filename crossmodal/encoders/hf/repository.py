"""Where a model lies: in a folder, or in a repository of the hub, as the hub's own library keeps it here."""

import json
from pathlib import Path
from typing import Any

from crossmodal.encoders.weights import file_digest
from crossmodal.errors import EncoderError

CONFIG = "config.json"

_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
_TOKENIZER_FILES = (
    "added_tokens.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_VOLATILE = ("_name_or_path", "transformers_version")
"""Entries of ``config.json`` that say who wrote it, not what the model is."""


def find_folder(rest: str) -> Path:
    """Give the folder of a model, which is fetched from the hub where there is no such folder.

    :param rest: ``FOLDER``, ``REPO`` or ``REPO@REVISION``.
    :raises EncoderError: when there is neither, or the hub cannot be reached.
    """
    if not rest:
        raise EncoderError("hf: lacks a name. Write hf:FOLDER, hf:REPO or hf:REPO@REVISION")
    folder = Path(rest).expanduser()
    if folder.is_dir():
        return folder.absolute()
    if rest.startswith((".", "/", "~")):
        raise EncoderError(f"hf:{rest}: no such folder. Expected one that save_pretrained wrote")
    name, _, revision = rest.partition("@")
    found = _download(rest, name, revision or None, "model*.safetensors")
    if not weight_files(found):
        found = _download(rest, name, revision or None, "pytorch_model*.bin")
    return found


def _download(rest: str, name: str, revision: str | None, weights: str) -> Path:
    """Fetch what is not here yet of a repository's own files, and of its weights in one format."""
    from huggingface_hub import errors, snapshot_download

    files = ["*.json", "*.model", "*.txt", weights]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=files, ignore_patterns="*/*"))
    except (errors.HFValidationError, errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise EncoderError(
            f"hf:{rest} is neither a folder nor a model that the hub has: {one_line(error)}"
        ) from error
    except Exception as error:  # whatever the network and the hub's library make of a failure
        raise EncoderError(
            f"hf:{rest} is no folder here, and needs the hub, which cannot be reached ({one_line(error)}). "
            "Without a network take hf:FOLDER, where FOLDER was written by save_pretrained, or: lite"
        ) from error


def read_config(name: str, folder: Path) -> dict[str, Any]:
    """Read a model's ``config.json``, as it is.

    :raises EncoderError: when it is missing or torn.
    """
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except FileNotFoundError as error:
        raise EncoderError(
            f"{name} lacks a {CONFIG}. Expected a folder that save_pretrained wrote, of model and processor"
        ) from error
    except (OSError, ValueError) as error:
        raise EncoderError(
            f"{name}: its {CONFIG} cannot be read ({one_line(error)}); fetch it again"
        ) from error
    if not isinstance(config, dict):
        raise EncoderError(
            f"{name}: its {CONFIG} holds a {type(config).__name__}, not an object; fetch it again"
        )
    return config


def lasting(config: dict[str, Any]) -> dict[str, Any]:
    """Leave out of a configuration what changes when the same model is saved again."""
    return {
        key: lasting(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in _VOLATILE
    }


def side_files(folder: Path) -> dict[str, str]:
    """Give the digests of the files that decide what becomes of pictures and texts, by name."""
    paths = [folder / name for name in (*_PROCESSOR_FILES, *_TOKENIZER_FILES)]
    return {path.name: file_digest(path) for path in paths if path.is_file()}


def check_side_files(name: str, folder: Path) -> None:
    """Make sure that something says how pictures and texts are prepared.

    :raises EncoderError: when nothing does.
    """
    for part, names in (("image processor", _PROCESSOR_FILES), ("tokenizer", _TOKENIZER_FILES)):
        if not any((folder / file).is_file() for file in names):
            raise EncoderError(
                f"{name} lacks its {part}: none of {', '.join(names)} is there. "
                "Save it beside the model: processor.save_pretrained(FOLDER)"
            )


def weight_files(folder: Path) -> list[Path]:
    """Give the files that hold a model's weights, safetensors first; none where there are none.

    :raises EncoderError: when a list of shards is torn, or a shard in it is missing.
    """
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return [folder / name]
        if (folder / f"{name}.index.json").is_file():
            return _shards(folder / f"{name}.index.json")
    return []


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise EncoderError(f"{index} is torn ({one_line(error)}); fetch it again") from error
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise EncoderError(f"{index.parent} lacks {missing[0]}, which {index.name} lists; fetch it again")
    return [index.parent / name for name in names]


def weight_digests(name: str, folder: Path) -> dict[str, str]:
    """Give the digests of the files of weights, by name.

    :raises EncoderError: when there are none.
    """
    files = weight_files(folder)
    if not files:
        raise EncoderError(
            f"{name} lacks its weights: neither {' nor '.join(_WEIGHTS)} is in {folder}; fetch it again"
        )
    return {file.name: file_digest(file) for file in files}


def one_line(error: BaseException) -> str:
    """Give the first line of what an error says."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
