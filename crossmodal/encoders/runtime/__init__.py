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
    from crossmodal.encoders.runtime.torch import TorchRunner

    return _on_devices(tower, lambda part, device: TorchRunner(part, device, dtype))


def _torch_compile(tower: Tower, dtype: str) -> Runner:
    from crossmodal.encoders.runtime.compiled import CompiledRunner

    return _on_devices(tower, lambda part, device: CompiledRunner(part, device, dtype))


def _on_devices(tower: Tower, make: Callable[[Tower, str], Runner]) -> Runner:
    """Give the runner of a tower on the one device that torch uses here, or on all of them."""
    from crossmodal.encoders.runtime.several import SeveralRunners

    found = devices()
    return make(tower, found[0]) if len(found) == 1 else SeveralRunners(tower, make, found)


BACKENDS: dict[str, Callable[[Tower, str], Runner]] = {
    "openvino": _openvino,
    "torch": _torch,
    "torch-compile": _torch_compile,
}
"""What can run a tower, by the name that ``--backend`` takes."""


def run_tower(tower: Tower, way: Way) -> Runner:
    """Give the runner of a tower on a chosen backend (see ``choose_backend``)."""
    return BACKENDS[way.backend](tower, way.dtype)
