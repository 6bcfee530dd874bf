"""Encoders by spec string, through one catalogue."""

from collections.abc import Callable

from crossmodal.encoders.base import Embeddings, Encoder, EncoderCard, Pixels
from crossmodal.encoders.runtime import choose_backend
from crossmodal.errors import EncoderError, unknown

__all__ = ["Embeddings", "Encoder", "EncoderCard", "Pixels", "load_encoder"]


def _lite(rest: str, backend: str, batch_size: int | None) -> Encoder:
    from crossmodal.encoders.lite.encoder import load_lite

    if rest:
        raise EncoderError(f"Encoder 'lite' takes nothing after its name, got {rest!r}. Use: lite")
    return load_lite(backend, batch_size)


_CATALOGUE: dict[str, Callable[[str, str, int | None], Encoder]] = {"lite": _lite}
"""What loads an encoder, by the part of the spec before the first colon; it is given the rest."""


def load_encoder(spec: str = "lite", *, backend: str = "auto", batch_size: int | None = None) -> Encoder:
    """Load an encoder by its spec string; its towers are built when they are first needed.

    :param spec: ``lite``, the encoder that is always there.
    :param backend: ``torch``, ``openvino``, or ``auto``: torch where there is an accelerator, else OpenVINO.
    :param batch_size: pictures per call of the image tower; a measured default where left out.
    :raises EncoderError: when the encoder or backend is unknown, or its weights are not what they should be.
    :raises MissingPackageError: when the package that carries its weights is not installed.
    """
    scheme, _, rest = spec.partition(":")
    if scheme not in _CATALOGUE:
        raise EncoderError(unknown("encoder", spec, _CATALOGUE))
    if batch_size is not None and batch_size < 1:
        raise EncoderError(f"Batch size {batch_size} is too small. Expected 1 or more")
    return _CATALOGUE[scheme](rest, choose_backend(backend), batch_size)
