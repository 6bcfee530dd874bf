"""Tar files that may be damaged: their members one by one, what is wrong with their end, one member again."""

import lzma
import os
import tarfile
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from tarfile import (  # type: ignore[attr-defined] # typeshed lacks some of them; they have long been there
    EmptyHeaderError,
    EOFHeaderError,
    HeaderError,
)
from typing import Self

from crossmodal.errors import SourceError
from crossmodal.sources.base import first_line, no_such_path

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
DAMAGE = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError)
"""What reading a damaged tar file may raise."""

BLOCK = 2**20


def is_tar(path: str | os.PathLike[str]) -> bool:
    """Say whether a file's name ends as that of a tar file."""
    return os.fspath(path).lower().endswith(TAR_SUFFIXES)


class _Member(tarfile.TarInfo):
    """A member that leaves with its archive why no more could be read."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile)
        except HeaderError as error:
            if isinstance(tarfile, Tar):
                tarfile.end = error
            raise


class Tar(tarfile.TarFile):
    """A tar file that knows how it ended; ``tarfile`` itself takes damage for the end."""

    tarinfo = _Member
    end: HeaderError | None = None

    def each(self) -> Iterator[tarfile.TarInfo]:
        """Yield the regular members; keep none of them."""
        while (member := self.next()) is not None:
            self.members: list[tarfile.TarInfo] = []
            if member.isreg():
                yield member

    def look_at_end(self) -> str | None:
        """Look at the end once all members have been read; give what is to be said about it, if anything.

        :raises tarfile.ReadError: when it ends in something else than an end.
        """
        if isinstance(self.end, EmptyHeaderError):
            return "has no end mark, so it may have been cut off"
        if not isinstance(self.end, EOFHeaderError):
            raise tarfile.ReadError(f"{self.end} at byte {self.offset}")
        assert self.fileobj is not None
        while rest := self.fileobj.read(BLOCK):
            if rest.strip(b"\0"):
                return f"more follows after its end mark at byte {self.offset}, which is not read"
        return None


def read_member(shard: Path, name: str) -> bytes:
    """Give the bytes of one member of a tar file, without reading those before it where it is not compressed.

    :raises SourceError: when the shard or the member does not exist or cannot be read.
    """
    try:
        status = shard.stat()
        at = _members(shard, status.st_mtime_ns, status.st_size).get(name)
        if at is None:
            raise SourceError(f"{shard} holds no member {name!r}")
        offset, size = at
        with tarfile.open(shard) as tar:
            assert tar.fileobj is not None
            tar.fileobj.seek(offset)
            content = tar.fileobj.read(size)
    except FileNotFoundError:
        raise no_such_path(shard, "shard") from None
    except DAMAGE as error:
        raise SourceError(f"{shard} is damaged or cannot be read: {first_line(error)}") from error
    if len(content) < size:
        raise SourceError(f"{shard} is cut off within the member {name!r}")
    return content


@lru_cache(maxsize=64)
def _members(shard: Path, changed: int, size: int) -> dict[str, tuple[int, int]]:
    """Say where the members of a tar file begin and how long they are; of equal names the first counts."""
    members: dict[str, tuple[int, int]] = {}
    try:
        with Tar.open(shard) as tar:
            for member in tar.each():
                members.setdefault(member.name, (member.offset_data, member.size))
    except DAMAGE:
        if not members:
            raise
    return members
