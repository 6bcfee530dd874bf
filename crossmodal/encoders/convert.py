"""A twin encoder written elsewhere: as a checkpoint of ours, or as its own library writes it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from crossmodal.encoders import read_blueprint
from crossmodal.encoders.blueprint import Blueprint, TwinModel
from crossmodal.encoders.checkpoint import save_checkpoint
from crossmodal.encoders.families import family
from crossmodal.encoders.folder_swap import replace_folder
from crossmodal.errors import EncoderError, unknown
from crossmodal.refusals import storage_errors


def convert_encoder(spec: str, folder: Path, layout: str = "checkpoint") -> Blueprint:
    """Read a twin encoder by its spec and write it into a folder; what is read back is the same bit for bit.

    :param layout: ``checkpoint``, which ``load_encoder(folder)`` reads; or ``original``, which the library
        that owns the model reads: ``local-dir:FOLDER`` of open_clip, ``from_pretrained(FOLDER)`` of
        transformers.
    :raises EncoderError: when the encoder cannot be read, or the folder holds something already.
    :raises StorageError: when the disk refuses; then nothing has changed.
    """
    if layout not in LAYOUTS:
        raise EncoderError(unknown("layout", layout, LAYOUTS))
    blueprint = read_blueprint(spec)
    check, write = LAYOUTS[layout]
    check(folder)  # before the model is loaded, which takes its time
    write(blueprint.load(), blueprint, folder)
    return blueprint


def _check_free(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise EncoderError(f"{folder} holds something already; choose a new path or an empty folder")


def _export(model: TwinModel, blueprint: Blueprint, folder: Path) -> None:
    with storage_errors(folder):
        replace_folder(folder, partial(family(blueprint.family).export, model, blueprint))


LAYOUTS: dict[str, tuple[Callable[[Path], None], Callable[[TwinModel, Blueprint, Path], None]]] = {
    "checkpoint": (_check_free, save_checkpoint),
    "original": (_check_free, _export),
}
"""What checks a folder and what writes a model into it, by the name of the layout."""
