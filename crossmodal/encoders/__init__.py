"""Encoders by spec string, through one catalogue."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from crossmodal.encoders.base import Embeddings, Encoder, EncoderCard, Pixels
from crossmodal.encoders.blueprint import Blueprint
from crossmodal.encoders.calibration import Kept
from crossmodal.encoders.families import known_families, read_spec
from crossmodal.encoders.prefix import PrefixEncoder
from crossmodal.encoders.runtime import Way, choose_backend
from crossmodal.errors import EncoderError, unknown
from crossmodal.types import ImageLike

__all__ = ["Embeddings", "Encoder", "EncoderCard", "Kept", "Pixels", "load_encoder", "read_blueprint"]


def _twin(spec: str, way: Way) -> Encoder:
    from crossmodal.encoders.twin import assemble

    return assemble(read_blueprint(spec), way)


_CATALOGUE: dict[str, Callable[[str, Way], Encoder]] = dict.fromkeys(known_families(), _twin)
"""What loads an encoder, by the part of its spec before the first colon. Any other spec is a folder."""


def load_encoder(
    spec: str | os.PathLike[str] = "lite",
    *,
    backend: str = "auto",
    dtype: str = "float32",
    calibration: Iterable[ImageLike] | Kept | None = None,
    batch_size: int | None = None,
    dim: int | None = None,
) -> Encoder:
    """Load an encoder by its spec string; its towers are built when they are first needed.

    :param spec: ``lite``, the encoder that is always there; ``open_clip:ARCH/TAG_OR_FILE``;
        ``hf:REPO_OR_FOLDER``; ``towers:IMAGE+TEXT``; or the folder of a checkpoint.
    :param backend: ``torch``, ``torch-compile``, ``openvino``, or ``auto``: torch where there is an
        accelerator, else OpenVINO.
    :param dtype: what the towers compute in: ``float32``, ``bfloat16``, ``float16`` (GPUs only), or ``int8``
        (OpenVINO only, the image tower). Embeddings are float32 in each, and comparable within one only.
    :param calibration: for int8, some hundred pictures like those to be searched, or a tower made before.
    :param batch_size: pictures per call of the image tower; by the memory that is free where left out.
    :param dim: keep so many of the first dimensions and make their length 1 again; all where left out.
    :raises EncoderError: when the encoder or backend is unknown, its weights are not what they should be, or
        this machine cannot compute in ``dtype``.
    :raises MissingPackageError: when the package that carries its weights, or quantises, is not installed.
    """
    if batch_size is not None and batch_size < 1:
        raise EncoderError(f"Batch size {batch_size} is too small. Expected 1 or more")
    if dtype == "int8" and calibration is None:
        raise EncoderError(
            "int8 is calibrated on pictures like those to be searched; give calibration=[picture, ...], "
            "or bring them in with: crossmodal index SOURCE COLLECTION --dtype int8"
        )
    spec = os.fspath(spec)
    if dtype != "int8" and calibration is not None:
        raise EncoderError(f"Only int8 is calibrated on pictures, and {dtype} is asked for; leave them out")
    load = _CATALOGUE.get(spec.partition(":")[0], _twin)
    way = Way(backend=choose_backend(backend, dtype), dtype=dtype, batch_size=batch_size)
    encoder = load(spec, way)
    if calibration is not None:
        encoder.quantise(calibration)
    return encoder if dim is None or dim == encoder.card.dim else PrefixEncoder(encoder, dim)


def read_blueprint(spec: str) -> Blueprint:
    """Read what a spec names, without building it: to load it, to train it, to save it elsewhere.

    :raises EncoderError: when the encoder is unknown, or its files are not what they should be.
    """
    from crossmodal.encoders.checkpoint import is_checkpoint, read_checkpoint

    scheme, colon, rest = spec.partition(":")
    if scheme in known_families() and (colon or spec == "lite"):
        return read_spec(scheme, rest)
    folder = Path(spec).expanduser()
    if spec and is_checkpoint(folder):
        return read_checkpoint(folder)
    open_ended = set(known_families()) - {"lite"}
    known = [f"{name}:..." if name in open_ended else name for name in _CATALOGUE]
    hint = ""
    if spec and folder.is_dir():
        hint = (
            "; a folder by itself must hold a checkpoint of ours, one that transformers wrote is "
            f"hf:{spec}, one of open_clip open_clip:local-dir:{spec}"
        )
    raise EncoderError(unknown("encoder", spec, known) + hint)
