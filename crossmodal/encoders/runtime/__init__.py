"""How a tower is run, apart from what it is: the backends, and the choice among them by hardware."""

from collections.abc import Callable

from crossmodal.encoders.runtime.base import Inputs, InputSpec, Quantisation, Runner, Tower, Way
from crossmodal.encoders.runtime.choice import DTYPES, accelerator, choose_backend, devices

__all__ = [
    "BACKENDS",
    "DTYPES",
    "InputSpec",
    "Inputs",
    "Quantisation",
    "Runner",
    "Tower",
    "Way",
    "accelerator",
    "choose_backend",
    "run_tower",
]


def _openvino(tower: Tower, dtype: str) -> Runner:
    from crossmodal.encoders.runtime.openvino import OpenVinoRunner

    # Only pictures can always be calibrated: a corpus need not have captions, and a query is one text.
    of_texts = dtype == "int8" and tower.modality == "text"
    return OpenVinoRunner(tower, "float32" if of_texts else dtype)


def _torch(tower: Tower, dtype: str) -> Runner:
    from crossmodal.encoders.runtime.several import SeveralRunners
    from crossmodal.encoders.runtime.torch import TorchRunner

    found = devices()
    if len(found) == 1:
        return TorchRunner(tower, found[0], dtype)
    return SeveralRunners(tower, lambda part, device: TorchRunner(part, device, dtype), found)


BACKENDS: dict[str, Callable[[Tower, str], Runner]] = {"openvino": _openvino, "torch": _torch}
"""What can run a tower, by the name that ``--backend`` takes."""


def run_tower(tower: Tower, way: Way) -> Runner:
    """Give the runner of a tower on a chosen backend (see ``choose_backend``)."""
    return BACKENDS[way.backend](tower, way.dtype)
