"""What the disk refuses, said in one line."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from crossmodal.errors import CrossmodalError, StorageError


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what the disk refuses, however Lance words it, into one line that says what to do."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, CrossmodalError):
            raise
        message = str(error).lower()
        for sign, advice in _REFUSALS.items():
            if sign in message:
                raise StorageError(f"{path}: {advice}") from error
        raise


_REFUSALS = {
    "no space left": "the disk is full; free some space and run the same command again",
    "disk quota": "your quota on this disk is used up; free some space and run the same command again",
    "file too large": "the file would be larger than this system allows; choose another disk",
    "read-only file system": "the disk is read-only; choose a path that can be written",
    "permission denied": "no permission to write here; choose another path or change its permissions",
    "operation not permitted": "no permission to write here; choose another path or change its permissions",
}
