"""Nothing here reports its use to anyone."""

import subprocess
import sys


def test_openvino_is_loaded_without_what_reports_its_use():
    script = """
import sys
from crossmodal.encoders.runtime import openvino
assert "openvino" in sys.modules
assert sys.modules.get("openvino_telemetry") is None
import openvino.tools.ovc as ovc
print(type(ovc.telemetry).__module__)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "openvino.tools.ovc.telemetry_stub"


def test_nncf_is_loaded_without_what_reports_its_use():
    script = """
from crossmodal.encoders.runtime import int8
import nncf.telemetry.wrapper
print(type(nncf.telemetry.wrapper.telemetry).__name__)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "MagicMock"  # NNCF's own stand-in for telemetry that is not there
