"""How runs end: exit codes, one line at most, and what is kept after an interruption."""

import errno
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

import ui.commands.info
from crossmodal import Collection
from crossmodal.errors import StorageError
from ui.endings import one_line


def fail_with(monkeypatch, error):
    """Let ``crossmodal info`` fail in a given way."""

    def callback(**_):
        raise error

    monkeypatch.setattr(ui.commands.info.command, "callback", callback)


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/a/b"), "/a/b: the disk is full"),
        (OSError(errno.EROFS, "Read-only file system", "/a/b"), "/a/b: the disk is read-only"),
        (PermissionError(errno.EACCES, "Permission denied", "/a/b"), "/a/b: no permission"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/a/b"), "/a/b: no such file"),
        (StorageError("the disk\nis full"), "the disk is full"),
        (click.UsageError("Not so."), "Not so. See:"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_exit_2(run, monkeypatch, error, wanted):
    fail_with(monkeypatch, error)
    result = run("info", "c")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert wanted in result.stderr


@pytest.mark.parametrize("error", [RuntimeError("broken"), OSError(errno.EBADF, "Bad file descriptor")])
def test_a_fault_of_ours_keeps_its_traceback_and_is_exit_1(run, monkeypatch, error):
    fail_with(monkeypatch, error)
    result = run("info", "c")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "Traceback" in result.stderr
    assert type(error).__name__ in result.stderr


@pytest.mark.parametrize(("flags", "told"), [((), ["grave"]), (("-v",), ["grave", "plain"])])
def test_the_log_goes_to_stderr_and_tells_more_when_asked(run, monkeypatch, flags, told):
    def callback(**_):
        logging.getLogger("crossmodal.part").warning("grave")
        logging.getLogger("crossmodal.part").info("plain")

    monkeypatch.setattr(ui.commands.info.command, "callback", callback)
    result = run("info", "c", *flags)
    assert result.stdout == ""
    assert [line.partition(": ")[2] for line in result.stderr.splitlines()] == told


def test_a_traceback_in_the_log_reaches_stderr(run, monkeypatch):
    def callback(**_):
        try:
            raise RuntimeError("a wheel came off")
        except RuntimeError:
            logging.getLogger("crossmodal.part").exception("it broke")

    monkeypatch.setattr(ui.commands.info.command, "callback", callback)
    lines = run("info", "c").stderr.splitlines()
    assert lines[:2] == ["error: it broke", "Traceback (most recent call last):"]
    assert lines[-1] == "RuntimeError: a wheel came off"


def test_a_line_holds_nothing_that_steers_a_terminal():
    assert one_line("a\x1b[31mred\n\tb\x07\u202ec") == "a [31mred b  c"


def test_a_closed_pipe_is_no_reason_to_complain():
    read, write = os.pipe()
    os.close(read)
    try:
        ran = subprocess.run(
            [sys.executable, "-m", "ui.cli", "--help"], stdout=write, stderr=subprocess.PIPE, timeout=60
        )
    finally:
        os.close(write)
    assert ran.stderr == b""
    assert ran.returncode == 128 + signal.SIGPIPE


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_behind_stdout_is_told():
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run([sys.executable, "-m", "ui.cli", "--help"], stdout=full, stderr=subprocess.PIPE)
    assert ran.returncode == 2
    assert ran.stderr.count(b"\n") == 1
    assert b"the disk is full" in ran.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_index_says_what_is_kept_and_goes_on_from_there(
    start, run, tmp_path, make_picture, number, code
):
    for i in range(60):
        make_picture(tmp_path / "p" / f"{i:02}.png", "red", seed=i)
    arguments = ["index", tmp_path / "p", tmp_path / "c", "--encoder", "toy", "--batch-size", "4"]
    began = start(*arguments, "--json", seconds_per_batch=0.2)
    table = tmp_path / "c" / "records.lance"
    while not table.exists() and began.poll() is None:
        time.sleep(0.02)
    time.sleep(0.7)
    began.send_signal(number)
    out, errors = began.communicate()
    assert began.returncode == code, errors
    assert out == ""
    assert errors.count("\n") == 1
    assert "of 60 are indexed; run the same command to go on" in errors

    kept = len(Collection.open(tmp_path / "c"))
    assert 0 < kept < 60
    finished = run(*arguments)
    assert finished.exit_code == 0, finished.stderr
    assert finished.stdout.startswith(f"{60 - kept} added, {kept} unchanged")
