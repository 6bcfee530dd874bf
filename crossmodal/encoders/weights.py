"""Files of weights: told apart by what they hold, and never run as code."""

import hashlib
import json
import os
from pathlib import Path

from crossmodal.machine import cache_root

_KNOWN = "digests.json"


def file_digest(path: Path) -> str:
    """Give the sha256 of a file. What was read once is remembered until the file changes."""
    status = path.stat()
    stamp = f"{path.resolve()}:{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"
    known = _read_known()
    if stamp not in known:
        with path.open("rb") as file:
            known[stamp] = hashlib.file_digest(file, "sha256").hexdigest()
        _write_known(known)
    return known[stamp]


def _read_known() -> dict[str, str]:
    try:
        known = json.loads((cache_root() / _KNOWN).read_bytes())
    except (OSError, ValueError):  # not there, or torn
        return {}
    return known if isinstance(known, dict) else {}


def _write_known(known: dict[str, str]) -> None:
    """Replace the list at once; a disk that refuses costs reading the file again next time."""
    try:
        cache_root().mkdir(parents=True, exist_ok=True)
        new = cache_root() / f"{_KNOWN}.{os.getpid()}"
        new.write_text(json.dumps(known))
        new.replace(cache_root() / _KNOWN)
    except OSError:
        return
