"""How a tower is run, apart from what it is: the backends, and the choice among them by hardware."""

import logging
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

from crossmodal.encoders.runtime.base import Inputs, InputSpec, Runner, Tower, Way
from crossmodal.errors import EncoderError, unknown

__all__ = [
    "BACKENDS",
    "InputSpec",
    "Inputs",
    "Runner",
    "Tower",
    "Way",
    "accelerator",
    "choose_backend",
    "run_tower",
]

_log = logging.getLogger(__name__)


def _openvino(tower: Tower) -> Runner:
    from crossmodal.encoders.runtime.openvino import OpenVinoRunner

    return OpenVinoRunner(tower)


def _torch(tower: Tower) -> Runner:
    from crossmodal.encoders.runtime.torch import TorchRunner

    return TorchRunner(tower, device=accelerator() or "cpu")


BACKENDS: dict[str, Callable[[Tower], Runner]] = {"openvino": _openvino, "torch": _torch}
"""What can run a tower, by the name that ``--backend`` takes."""


def run_tower(tower: Tower, way: Way) -> Runner:
    """Give the runner of a tower on a chosen backend (see ``choose_backend``)."""
    return BACKENDS[way.backend](tower)


def choose_backend(asked: str) -> str:
    """Turn ``auto`` into the backend that suits this machine, and say so in the log; check any other name.

    :raises EncoderError: when there is no such backend.
    """
    if asked in BACKENDS:
        return asked
    if asked != "auto":
        raise EncoderError(unknown("backend", asked, ["auto", *BACKENDS]))
    device = accelerator()
    chosen = "torch" if device else "openvino"
    _log.info("Backend %s, for this machine has %s", chosen, device or "no accelerator that torch can use")
    return chosen


def accelerator() -> str:
    """Name the accelerator that torch can use: ``cuda``, ``mps``, or an empty string.

    Importing torch takes seconds, so that is done only where the machine shows signs of having one.
    """
    if _signs_of_cuda():
        import torch

        if torch.cuda.is_available():
            return "cuda"
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        import torch

        if torch.backends.mps.is_available():
            return "mps"
    return ""


def _signs_of_cuda() -> bool:
    """Tell whether an NVIDIA driver may be there: its device files (WSL has its own), or its command."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    devices = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/nvhost-gpu", "/dev/nvmap")
    return any(Path(device).exists() for device in devices) or shutil.which("nvidia-smi") is not None
