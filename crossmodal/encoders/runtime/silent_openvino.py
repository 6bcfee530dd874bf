"""OpenVINO without the package that, where installed, reports every import to its makers over the network."""

import sys

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: not to be imported

from functools import cache  # noqa: E402

import openvino as ov  # noqa: E402

__all__ = ["core", "ov"]


@cache
def core() -> ov.Core:
    """Give this process's one core, which is never let go.

    A core sets up a stack for signals in the thread that first uses it, and frees it in the thread that lets
    it go. Were that another one, the next signal, Ctrl-C for instance, would end the process by a fault.
    """
    return ov.Core()
