"""A folder and all below it, one directory in memory at a time."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from crossmodal.images import IMAGE_SUFFIXES
from crossmodal.sources.base import Skip, exists, no_such_path, refused


@dataclass(frozen=True, kw_only=True)
class Directory:
    """One directory: where it is, relative to the root as ``a/b/`` or empty, and the files it holds, sorted.

    ``names`` are of files and directories; those of directories end in a slash.
    """

    path: Path
    prefix: str
    names: tuple[str, ...]
    hidden: int

    @cached_property
    def texts(self) -> dict[str, str]:
        """The ``.txt`` files by their name without the suffix."""
        return {os.path.splitext(n)[0]: n for n in self.names if n.lower().endswith(".txt")}  # noqa: PTH122


def walk(root: Path, skip: Skip) -> Iterator[tuple[Directory, str | None]]:
    """Yield ``(directory, None)`` on entering each directory and ``(directory, name)`` for each file in it.

    Files come in the order of their paths relative to the root, compared as text. A link to a directory is
    followed unless it leads to where the walk comes anyway, or has been; so a loop of links ends.

    :raises SourceError: when the root cannot be listed.
    """
    try:
        entered = _enter(root, "", skip)
    except FileNotFoundError:
        raise no_such_path(root, "folder") from None
    except OSError as error:
        raise refused(root, error) from error
    reached = [root.resolve()]
    yield entered, None
    open_directories = [(entered, iter(entered.names))]
    while open_directories:
        directory, names = open_directories[-1]
        name = next(names, None)
        if name is None:
            open_directories.pop()
        elif not name.endswith("/"):
            yield directory, name
        else:
            prefix = directory.prefix + name
            try:
                if not _is_new(directory.path / name, reached):
                    continue
                entered = _enter(directory.path / name, prefix, skip)
            except OSError as error:
                skip(prefix, f"the folder cannot be read: {error.strerror or error}", hides=True)
                continue
            yield entered, None
            open_directories.append((entered, iter(entered.names)))


def _enter(path: Path, prefix: str, skip: Skip) -> Directory:
    """List one directory. Directories sort with their slash, as they do in the paths of what they hold."""
    names: list[str] = []
    hidden = 0
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                hidden += 1
            elif name := _usable(entry, prefix, skip):
                names.append(name)
    return Directory(path=path, prefix=prefix, names=tuple(sorted(names)), hidden=hidden)


def _usable(entry: os.DirEntry[str], prefix: str, skip: Skip) -> str | None:
    """Give a name as ``Directory.names`` has it; tell why it cannot be used.

    A link that leads nowhere stays among the names, for whoever reads it finds out: a picture is missing,
    captions cannot be read. But it may have led to a folder, on a disk that is not mounted now.
    """
    name = entry.name
    try:
        name.encode()
        if entry.is_dir():
            return name + "/"
        if entry.is_file():
            return name
        if entry.is_symlink() and not exists(entry.path):
            if not is_picture(name):
                skip(prefix + name, "a link that leads nowhere", hides=True)
            return name
        skip(prefix + name, "neither a file nor a folder")
    except UnicodeEncodeError:
        skip(prefix + name, "its name is not UTF-8")
    except OSError as error:
        skip(prefix + name, error.strerror or str(error), hides=True)
        return None if is_picture(name) else name
    return None


def is_picture(name: str) -> bool:
    """Say whether a file's name ends as that of a picture."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 - many names, no need of paths


def _is_new(path: Path, reached: list[Path]) -> bool:
    """Say whether to enter a directory: always if it is a real one, a link only if it leads somewhere new."""
    if not path.is_symlink():
        return True
    target = path.resolve()
    if any(_comes_by(target, place) for place in reached):
        return False
    reached.append(target)
    return True


def _comes_by(target: Path, place: Path) -> bool:
    """Say whether a walk of ``place`` comes to ``target``: it lies inside, and not hidden."""
    return target.is_relative_to(place) and not any(
        part.startswith(".") for part in target.relative_to(place).parts
    )
