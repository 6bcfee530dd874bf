"""What every source of pairs is, whatever it is read from."""

import difflib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from crossmodal.errors import SourceError
from crossmodal.types import Record


class Skip(Protocol):
    """Called with a key and a reason for each thing that is left out.

    ``hides`` says that it could not even be seen which records lie behind it: a folder that may not be read,
    the rest of a torn shard, a line that does not parse.
    """

    def __call__(self, key: str, reason: str, *, hides: bool = False) -> None:
        """Note what is left out."""


class Source(ABC):
    """An iterable of records: lazy, and the same again each time.

    ``spec`` is the canonical string that names the source; ``open_source(spec)`` opens it again.
    ``skipped`` lists ``(key, reason)`` for what could not become a record or a caption; it fills while the
    source is iterated and starts empty with each iteration. ``hiding`` lists those of them behind which
    unknown records lie: while there are any, a record that did not come is not known to be gone. Whether a
    picture file can be decoded is not looked at here.
    """

    spec: str
    skipped: list[tuple[str, str]]
    hiding: list[str]

    def __init__(self, spec: str) -> None:
        self.spec = spec
        self.skipped = []
        self.hiding = []

    def __iter__(self) -> Iterator[Record]:
        self.skipped = skipped = []
        self.hiding = hiding = []

        def skip(key: str, reason: str, *, hides: bool = False) -> None:
            skipped.append((printable(key), printable(reason)))
            if hides:
                hiding.append(printable(key))

        return self._records(skip)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.spec!r})"

    @property
    def count(self) -> int | None:
        """How many records there are, or None where finding out would mean reading everything."""
        return None

    @abstractmethod
    def _records(self, skip: Skip) -> Iterator[Record]:
        """Yield the records; call ``skip`` for what is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnNames:
    """The columns a person named; None where the usual names are to be looked for."""

    image: str | None = None
    caption: str | None = None
    key: str | None = None

    def refuse(self, spec: str, why: str) -> None:
        """Raise if any column was named for a source that has no columns to choose."""
        if self != ColumnNames():
            raise SourceError(f"{spec}: {why}, so no column can be named for it. Leave the column names out")


def unique_keys(records: Iterable[Record], skip: Skip) -> Iterator[Record]:
    """Pass records on, but skip those whose key an earlier one has."""
    seen: set[str] = set()
    for record in records:
        if record.key in seen:
            skip(record.key, f"an earlier record with another picture has this key; left out: {record.uri}")
            continue
        seen.add(record.key)
        yield record


def printable(text: str) -> str:
    r"""Give a text that any terminal and any JSON takes: bytes that are not UTF-8 become ``\udc..``."""
    return text.encode(errors="backslashreplace").decode()


def absolute(path: str | os.PathLike[str]) -> Path:
    """Make a path absolute, with ``~`` for the home folder and without ``.`` and ``..``; links stay links."""
    # resolve() would follow links, and Path.expanduser() raises where it knows no such person.
    return Path(os.path.abspath(os.path.expanduser(path)))  # noqa: PTH100, PTH111


def exists(path: str | os.PathLike[str]) -> bool:
    """Say whether there is anything at a path; no text, however odd, is an error."""
    return os.path.exists(path)  # noqa: PTH110 - Path.exists() raises where a name is too long


def no_such_path(path: Path, what: str = "file or folder") -> SourceError:
    """Give the error for a path that does not exist, with the nearest name that does."""
    parent = next((p for p in path.parents if p.is_dir()), None)
    if parent != path.parent:
        return SourceError(f"No such {what}: {path} (the last folder that exists is {parent})")
    try:
        names = os.listdir(parent)  # noqa: PTH208 - names are what is wanted
    except OSError:
        names = []  # a folder that may be passed but not listed has no names to suggest
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    hint = f". Did you mean {near[0]!r}?" if near else ""
    return SourceError(f"No such {what}: {path}{hint}")


def refused(path: str | os.PathLike[str], error: OSError) -> SourceError:
    """Give the error for a path that the system would not let us read."""
    return SourceError(f"{os.fspath(path)} cannot be read: {error.strerror or error}")


def first_line(error: BaseException) -> str:
    """Give what an error says, and what caused it, without further lines."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return f"{line}: {first_line(error.__cause__)}" if error.__cause__ else line


def read_bytes(path: Path) -> bytes:
    """Give a file's bytes.

    :raises SourceError: when it does not exist or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise no_such_path(path, "file") from None
    except OSError as error:
        raise refused(path, error) from error
    except ValueError:
        raise SourceError(f"{str(path)!r} is no path") from None
