"""What the disk refuses, said in one line with what to do, whoever was told of it."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from crossmodal.errors import CrossmodalError, StorageError

_ADVICE = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "your quota on this disk is used up; free some space and run the same command again",
    errno.EFBIG: "the file would be larger than this system allows; choose another disk",
    errno.EROFS: "the disk is read-only; choose a path that can be written",
    errno.EACCES: "no permission; change the permissions or choose another path",
    errno.EPERM: "no permission; change the permissions or choose another path",
    errno.ENOENT: "no such file or folder; check the path",
    errno.ENOTDIR: "a part of the path is a file, not a folder; check the path",
    errno.EISDIR: "it is a folder, and a file is wanted; check the path",
    errno.ENAMETOOLONG: "the name is too long for this disk; choose a shorter one",
    errno.EMFILE: "too many open files; raise the limit with 'ulimit -n 4096'",
}

# Lance gives no error numbers. A missing file is not listed: inside a table it is damage, no wrong path.
_WORDS = {
    "no space left": errno.ENOSPC,
    "disk quota": errno.EDQUOT,
    "file too large": errno.EFBIG,
    "read-only file system": errno.EROFS,
    "permission denied": errno.EACCES,
    "operation not permitted": errno.EPERM,
}


def disk_advice(error: OSError) -> str:
    """Say what the user can do about what the operating system refused; empty where that is unknown."""
    known = _ADVICE.get(error.errno or 0, "")
    return f"{error.filename}: {known}" if known and error.filename else known


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what the disk refuses, however Lance words it, into one line that says what to do.

    :raises StorageError: in place of an error whose words are known.
    """
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, CrossmodalError):
            raise
        message = str(error).lower()
        for words, number in _WORDS.items():
            if words in message:
                raise StorageError(f"{path}: {_ADVICE[number]}") from error
        raise
