"""The checkpoint folder: a twin encoder on disk, whole and without code.

=================  =====================================================================================
config.json        ``format``, ``family``, ``architecture``, ``preprocessing``, ``tokenizer``, ``dim``, and
                   the ``versions`` of the libraries that wrote it
model.safetensors  the state dict of the owner's model, each tensor in its own dtype
...                the tokenizer's files
=================  =====================================================================================
"""

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from crossmodal.encoders.blueprint import Blueprint, TwinModel
from crossmodal.encoders.families import family
from crossmodal.errors import EncoderError

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
FORMAT = 1
LIBRARIES = ("crossmodal-retrieval", "torch", "transformers", "open-clip-torch", "timm", "tokenizers")


def is_checkpoint(folder: Path) -> bool:
    """Tell whether a folder holds a checkpoint of ours; other libraries write a ``config.json``, too."""
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "format" in config and "family" in config


def save_checkpoint(model: TwinModel, blueprint: Blueprint, folder: Path) -> None:
    """Write a model into a folder, from which ``read_checkpoint`` gives the same embeddings bit for bit."""
    from safetensors.torch import save_model

    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "format": FORMAT,
        "family": blueprint.family,
        "architecture": dict(blueprint.architecture),
        "preprocessing": blueprint.preprocessing.to_dict(),
        "tokenizer": blueprint.tokenizer.save(folder),
        "dim": blueprint.dim,
        "versions": _versions(),
    }
    save_model(model.owner, str(folder / WEIGHTS))
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")


def read_checkpoint(folder: Path) -> Blueprint:
    """Read a checkpoint folder.

    :raises EncoderError: when it was written in a newer format, or something in it is torn or does not fit.
    """
    config: dict[str, Any] = json.loads((folder / CONFIG).read_bytes())
    if config["format"] > FORMAT:
        writer = config.get("versions", {}).get("crossmodal-retrieval", "a newer version")
        raise EncoderError(
            f"{folder} is a checkpoint of format {config['format']}, and this version reads up to {FORMAT}; "
            f"install crossmodal-retrieval {writer} or newer"
        )
    return family(config["family"]).restore(config, folder)


def _versions() -> dict[str, str]:
    """Give the versions of what decides how a checkpoint is read."""
    found = {}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found
