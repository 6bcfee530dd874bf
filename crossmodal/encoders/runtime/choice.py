"""Which backend runs the towers, and in which arithmetic: what is asked for, and what this machine can."""

import logging
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

from crossmodal.errors import EncoderError, unknown

DTYPES = ("bfloat16", "float16", "float32", "int8")
"""The arithmetics that ``--dtype`` takes. Embeddings come out as float32 in each of them."""

_log = logging.getLogger(__name__)


def choose_backend(asked: str, dtype: str = "float32") -> str:
    """Turn ``auto`` into the backend that suits this machine and dtype, and say so in the log.

    :raises EncoderError: when there is no such backend or dtype, or the backend cannot compute in it here.
    """
    if asked not in ("auto", *_ABILITIES):
        raise EncoderError(unknown("backend", asked, ["auto", *_ABILITIES]))
    if dtype not in DTYPES:
        raise EncoderError(unknown("dtype", dtype, DTYPES))
    chosen = asked if asked != "auto" else _suited(dtype)
    if dtype != "float32" and dtype not in _ABILITIES[chosen]():
        able = "; ".join(f"{name} can in {', '.join(can())}" for name, can in _ABILITIES.items())
        raise EncoderError(f"{chosen} cannot compute in {dtype} on this machine. Here {able}")
    return chosen


def _suited(dtype: str) -> str:
    """Choose by hardware, among those that know the arithmetic at all."""
    device = accelerator()
    if dtype == "int8":
        chosen, reason = "openvino", "for int8 is its own"
    elif dtype == "float16":
        chosen, reason = "torch", "for float16 is of GPUs"
    else:
        chosen = "torch" if device else "openvino"
        reason = f"for this machine has {device or 'no accelerator that torch can use'}"
    _log.info("Backend %s, %s", chosen, reason)
    return chosen


def _openvino_dtypes() -> tuple[str, ...]:
    """Give what OpenVINO computes in on this processor without a detour through float32."""
    from crossmodal.encoders.runtime.silent_openvino import ov

    able = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ("float32", *(["bfloat16"] if "BF16" in able else []), "int8")


def _torch_dtypes() -> tuple[str, ...]:
    """Give what torch computes in on the device it would run on."""
    device = accelerator()
    if device == "mps":
        return ("float32", "float16")
    if device == "cuda":
        import torch

        return ("float32", *(["bfloat16"] if torch.cuda.is_bf16_supported() else []), "float16")
    return ("float32", "bfloat16")


_ABILITIES: dict[str, Callable[[], tuple[str, ...]]] = {
    "openvino": _openvino_dtypes,
    "torch": _torch_dtypes,
    "torch-compile": _torch_dtypes,
}
"""What can run a tower, by the name that ``--backend`` takes, and what tells its dtypes."""


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


def devices() -> list[str]:
    """Name the devices torch runs on, each as torch names it: all GPUs, or the one processor."""
    kind = accelerator()
    if kind == "cuda":
        import torch

        if (count := torch.cuda.device_count()) > 1:
            return [f"cuda:{number}" for number in range(count)]
    return [kind or "cpu"]


def _signs_of_cuda() -> bool:
    """Tell whether an NVIDIA driver may be there: its device files (WSL has its own), or its command."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    files = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/nvhost-gpu", "/dev/nvmap")
    return any(Path(file).exists() for file in files) or shutil.which("nvidia-smi") is not None
