"""A collection's one pen: its holder may write, and the system takes it back from a process that dies."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import filelock

from crossmodal.errors import CollectionError
from crossmodal.refusals import storage_errors

LOCK = "writer.lock"
WAIT_SECONDS = 10.0


@contextlib.contextmanager
def pen(path: Path) -> Iterator[None]:
    """Hold the pen of the collection in a folder.

    :raises CollectionError: when another process does not lay it down.
    :raises StorageError: when the folder cannot be written to.
    """
    lock = filelock.FileLock(path / LOCK)
    try:
        with storage_errors(path):
            lock.acquire(timeout=WAIT_SECONDS)
    except filelock.Timeout:
        raise CollectionError(
            f"Another process is writing to {path}; wait until it is done, or stop it"
        ) from None
    try:
        yield
    finally:
        lock.release()
