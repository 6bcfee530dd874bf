"""Where prepared towers are kept: folders that are there whole or not at all.

A folder is written beside its place, flushed, and renamed into it, so that two processes may prepare the same
tower at once and a kill at any moment leaves nothing half done. A list of its files with sizes and checksums
closes it; one that does not match is prepared anew.

What was prepared for other versions of an encoder or its runtime stays until somebody deletes it. The whole
cache folder may be deleted at any time: all in it is made again when it is wanted.
"""

import json
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

from crossmodal.encoders.runtime.base import Tower
from crossmodal.machine import cache_root

MANIFEST = "files.json"
SCRATCH = ".new-"
"""How the name begins of what a folder is written under, beside its place; a kill leaves it there."""

_STRAY_AFTER_SECONDS = 3600


def tower_folder(tower: Tower, runtime: str) -> Path:
    """Name the folder of a tower as prepared for one version of a runtime and one arithmetic."""
    return cache_root() / "towers" / f"{tower.fingerprint[:32]}-{runtime}" / tower.modality


def is_whole(folder: Path) -> bool:
    """Tell whether a folder is as ``write_whole`` left it, down to the checksum of each file listed."""
    try:
        files = json.loads((folder / MANIFEST).read_bytes())
        return all(_fingerprint(folder / name) == seen for name, seen in files.items())
    except (OSError, ValueError, AttributeError):  # not there, or torn
        return False


def is_writable(folder: Path) -> bool:
    """Tell whether this process may add files to a folder."""
    return os.access(folder, os.W_OK | os.X_OK)


def write_whole(folder: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a folder and put it in its place at once; what another process put there stays.

    :raises OSError: when the disk is full, read-only or not ours to write; nothing is left behind.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_strays(folder.parent)
    with tempfile.TemporaryDirectory(
        dir=folder.parent, prefix=SCRATCH, ignore_cleanup_errors=True
    ) as scratch:
        new = Path(scratch) / "new"
        new.mkdir()
        write(new)
        files = {path.name: _fingerprint(path, flush=True) for path in sorted(new.iterdir())}
        with (new / MANIFEST).open("w") as manifest:
            json.dump(files, manifest)
            manifest.flush()
            os.fsync(manifest.fileno())
        if folder.exists() and not is_whole(folder):
            folder.rename(Path(scratch) / "torn")
        try:
            new.rename(folder)
        except OSError:
            if not is_whole(folder):  # else another process was first, with the same content
                raise


def copy_whole(folder: Path, to: Path) -> None:
    """Copy what ``write_whole`` put into a folder, and nothing that was added to it since.

    :raises OSError: as ``write_whole`` does.
    """
    names = json.loads((folder / MANIFEST).read_bytes())

    def copy(target: Path) -> None:
        for name in names:
            shutil.copyfile(folder / name, target / name)

    write_whole(to, copy)


def _remove_strays(parent: Path) -> None:
    """Remove what killed processes left half done; a young folder may still be in the making."""
    for stray in parent.glob(f"{SCRATCH}*"):
        try:
            if time.time() - stray.stat().st_mtime > _STRAY_AFTER_SECONDS:
                shutil.rmtree(stray, ignore_errors=True)
        except FileNotFoundError:
            continue  # another process was quicker


def _fingerprint(path: Path, *, flush: bool = False) -> list[int]:
    """Give a file's size and CRC-32, which 90 MB take 15 ms for; with ``flush``, once it is on the disk."""
    with path.open("r+b" if flush else "rb") as file:  # Windows flushes only what may be written
        if flush:
            os.fsync(file.fileno())
        checksum = 0
        while piece := file.read(1 << 20):
            checksum = zlib.crc32(piece, checksum)
        return [file.tell(), checksum]
