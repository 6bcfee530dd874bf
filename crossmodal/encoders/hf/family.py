"""The family ``hf``: models of transformers that have ``get_image_features`` and ``get_text_features``."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossmodal.encoders.blueprint import Blueprint, TwinModel, fingerprint
from crossmodal.encoders.hf.kinds import kind_of
from crossmodal.encoders.hf.pixels import ProcessorPixels
from crossmodal.encoders.hf.prepared import prepare
from crossmodal.encoders.hf.repository import find_folder, lasting, read_config, side_files, weight_digests
from crossmodal.encoders.hf.tokens import FolderTokenizer, TokenSettings
from crossmodal.encoders.weights import file_digest
from crossmodal.errors import EncoderError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

FAMILY = "hf"
WEIGHTS = "model.safetensors"


def blueprint(rest: str) -> Blueprint:
    """Read ``FOLDER``, as ``save_pretrained`` wrote it, or from the hub ``REPO`` or ``REPO@REVISION``.

    :raises EncoderError: when it is not there, is no twin encoder, or something in it is missing or torn.
    :raises MissingPackageError: when its tokenizer takes a package that is not installed.
    """
    folder = find_folder(rest)
    # A folder is found again from any other one; a repository, by its own name.
    name = f"{FAMILY}:{folder if Path(rest).expanduser().is_dir() else rest}"
    parts = prepare(name, folder)
    identity = fingerprint(
        family=FAMILY,
        config=lasting(read_config(name, folder)),
        weights=weight_digests(name, folder),
        files=side_files(folder),
    )
    return Blueprint(
        name=name,
        family=FAMILY,
        architecture=parts.architecture,
        dim=parts.dim,
        fingerprint=identity,
        preprocessing=parts.preprocessing,
        tokenizer=parts.tokenizer,
        load=partial(_load, partial(_pretrained, name, folder), parts.preprocessing, parts.tokenizer),
    )


def restore(config: dict[str, Any], folder: Path) -> Blueprint:
    """Read a checkpoint folder of ours.

    :raises EncoderError: when something in it is missing, torn or does not fit.
    """
    name = str(folder)
    try:
        architecture = dict(config["architecture"])
        kind_of(name, architecture.get("model_type"))
        preprocessing = ProcessorPixels.from_dict(config["preprocessing"])
        settings = TokenSettings.from_dict(config["tokenizer"])
        dim = int(config["dim"])
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, EncoderError):
            raise
        raise EncoderError(
            f"{name}: its config.json is torn ({error!r}); copy the checkpoint again"
        ) from error
    for file in (WEIGHTS, *settings.files):
        if not (folder / file).is_file():
            raise EncoderError(f"{name} lacks {file}; copy the checkpoint again")
    identity = fingerprint(
        family=FAMILY,
        config=lasting(architecture),
        weights=file_digest(folder / WEIGHTS),
        preprocessing=preprocessing.to_dict(),
        tokenizer=settings.to_dict(),
        files={file: file_digest(folder / file) for file in settings.files},
    )
    tokenizer = FolderTokenizer(folder, settings)
    return Blueprint(
        name=name,
        family=FAMILY,
        architecture=architecture,
        dim=dim,
        fingerprint=identity,
        preprocessing=preprocessing,
        tokenizer=tokenizer,
        load=partial(_load, partial(_state, name, architecture, folder / WEIGHTS), preprocessing, tokenizer),
    )


def export(model: TwinModel, blueprint: Blueprint, folder: Path) -> None:
    """Write model, image processor and tokenizer as ``save_pretrained`` does."""
    from crossmodal.encoders.hf.export import write_pretrained

    write_pretrained(model.owner, blueprint, folder)


def _load(
    build: "Callable[[], nn.Module]", preprocessing: ProcessorPixels, tokenizer: FolderTokenizer
) -> TwinModel:
    from crossmodal.encoders.hf.model import twin

    return twin(build(), preprocessing, tokenizer.settings)


def _pretrained(name: str, folder: Path) -> "nn.Module":
    from crossmodal.encoders.hf.model import load_pretrained

    return load_pretrained(name, folder)


def _state(name: str, architecture: dict[str, Any], file: Path) -> "nn.Module":
    from crossmodal.encoders.hf.model import load_state

    return load_state(name, architecture, file)
