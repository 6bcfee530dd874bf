"""From the ``uri`` of a record back to the bytes of its picture's file, or to whether it is still there."""

import re
from pathlib import Path

from crossmodal.errors import SourceError
from crossmodal.sources.base import absolute, exists, read_bytes
from crossmodal.sources.tars import TAR_SUFFIXES

CONTAINERS = (".parquet", *TAR_SUFFIXES)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # one letter would be a Windows drive


def read_uri(uri: str) -> bytes:
    """Give the bytes of the picture file that a record's ``uri`` names.

    It is the path of a file, ``shard.tar#member``, ``table.parquet#ROW[:COLUMN]``,
    ``hf:NAME:SPLIT#ROW[:COLUMN]`` or ``sample:KEY``. Which paths may be read is for the caller to decide.

    :raises SourceError: when there is nothing there, or it cannot be read.
    """
    if not uri or "\0" in uri:
        raise SourceError(f"{uri!r} says of no picture where it is")
    if uri.startswith("sample:"):
        from crossmodal.sources.sample import read_sample

        return read_sample(uri.removeprefix("sample:"))
    if uri.startswith("hf:"):
        from crossmodal.sources.hub import read_row

        name, _, fragment = uri.removeprefix("hf:").rpartition("#")
        return read_row(name, fragment)
    path = absolute(uri)
    if not exists(path):
        container, inside = _container(uri)
        if container is not None:
            return _read_inside(container, inside)
    return read_bytes(path)


def is_there(uri: str) -> bool | None:
    """Say whether the picture that a record's ``uri`` names can still be found; None if a look cannot tell.

    A path is looked for; of ``shard.tar#member`` and ``table.parquet#ROW`` the file is, which is not opened.
    A look cannot tell of ``sample:`` and ``hf:``, of no ``uri`` at all, and of kinds that are not ours.
    """
    if not uri or "\0" in uri or uri.startswith(("sample:", "hf:")):
        return None
    container, _ = _container(uri)
    if exists(absolute(uri)) or (container is not None and exists(container)):
        return True
    return None if _SCHEME.match(uri) else False


def _container(uri: str) -> tuple[Path | None, str]:
    """Split ``file#inside``. Both may hold more such signs: the first behind a container's suffix counts."""
    at = uri.find("#")
    while at >= 0:
        if uri[:at].lower().endswith(CONTAINERS):
            return absolute(uri[:at]), uri[at + 1 :]
        at = uri.find("#", at + 1)
    return None, ""


def _read_inside(container: Path, inside: str) -> bytes:
    if container.suffix.lower() == ".parquet":
        from crossmodal.sources.table import read_parquet_row

        return read_parquet_row(container, inside)
    from crossmodal.sources.tars import read_member

    return read_member(container, inside)
