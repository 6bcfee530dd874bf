"""What the machine offers, as its owner has set it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from crossmodal.machine import cache_root, usable_processors


def test_the_cache_lies_where_it_is_wanted(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSMODAL_CACHE", str(tmp_path / "here"))
    assert cache_root() == tmp_path / "here"
    monkeypatch.setenv("CROSSMODAL_CACHE", str(Path("~") / "there"))
    assert cache_root() == Path.home() / "there"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CROSSMODAL_CACHE", "near")
    assert cache_root() == Path.cwd() / "near"


@pytest.mark.skipif(sys.platform != "linux", reason="XDG_CACHE_HOME counts on Linux")
def test_the_cache_lies_in_the_users_cache_folder_when_nothing_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv("CROSSMODAL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root() == tmp_path / "crossmodal"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to processors")
def test_a_process_bound_to_one_processor_uses_one():
    code = (
        "import os; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])\n"
        "from crossmodal.machine import usable_processors; print(usable_processors())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


@pytest.mark.parametrize(("quota", "most"), [("150000 100000", 2), ("50000 100000", 1), ("max 100000", 1000)])
def test_a_container_quota_is_heeded(monkeypatch, quota, most):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(Path, "read_text", lambda _: quota)
    assert usable_processors() == min(64, most)
