"""A folder that is there whole or not at all: written beside its place, flushed, and swapped into it."""

import ctypes
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

_SCRATCH = ".crossmodal-new-"
_STRAY_AFTER_SECONDS = 3600

# What exchanges two paths at once. Linux: renameat2(2), where the file system can; macOS: renamex_np(2).
_HERE = -100  # AT_FDCWD
_EXCHANGE = 2  # RENAME_EXCHANGE of Linux, and RENAME_SWAP of macOS


def replace_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a new folder, and put it in the place of ``folder`` at once; the old one goes.

    Whoever looks finds the old folder or the new one. Where the system cannot exchange two folders, there is
    none for a moment between two renames. A process that is killed leaves the old one.

    :raises OSError: when the disk is full, read-only or not ours to write; then nothing has changed.
    """
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_strays(folder.parent)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=_SCRATCH))
    try:
        new = scratch / "new"
        new.mkdir()
        write(new)
        for path in [*new.rglob("*"), new]:
            _flush(path)
        if folder.exists():
            _exchange(new, folder, scratch / "old")
        else:
            new.rename(folder)
        _flush(folder.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _exchange(new: Path, folder: Path, aside: Path) -> None:
    """Put ``new`` in the place of ``folder``, and that into ``new`` or ``aside``."""
    if _exchanged(os.fsencode(new), os.fsencode(folder)):
        return
    folder.rename(aside)
    try:
        new.rename(folder)
    except OSError:
        aside.rename(folder)
        raise


def _exchanged(one: bytes, other: bytes) -> bool:
    """Exchange two paths at once; False where this system or disk cannot, and then nothing has changed."""
    try:
        system = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            return bool(system.renamex_np(one, other, _EXCHANGE) == 0)
        return bool(system.renameat2(_HERE, one, _HERE, other, _EXCHANGE) == 0)
    except (OSError, AttributeError, TypeError):  # an older C library, or Windows
        return False


def _flush(path: Path) -> None:
    """Bring a file, or the list of a folder's files, onto the disk."""
    if path.is_dir():
        if os.name == "nt":  # where folders cannot be opened
            return
        handle = os.open(path, os.O_RDONLY)
    else:
        handle = os.open(path, os.O_RDWR)  # Windows flushes only what may be written
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_strays(parent: Path) -> None:
    """Remove what killed processes left half done; a young folder may still be in the making."""
    for stray in parent.glob(f"{_SCRATCH}*"):
        try:
            if time.time() - stray.stat().st_mtime > _STRAY_AFTER_SECONDS:
                shutil.rmtree(stray, ignore_errors=True)
        except FileNotFoundError:
            continue  # another process was quicker
