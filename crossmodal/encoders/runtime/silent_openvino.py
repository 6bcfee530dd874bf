"""OpenVINO without the package that, where installed, reports every import to its makers over the network."""

import sys

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: not to be imported

import openvino as ov  # noqa: E402

__all__ = ["ov"]
