"""A folder of pictures, with captions beside them or in ``metadata.csv|jsonl|parquet``, or without any.

The key of a picture is its path relative to the folder, with forward slashes, and pictures come sorted by
it. Hidden files and folders are left out. The folder is walked when it is opened, which counts its pictures
and reads its metadata, and again, lazily, each time it is iterated.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from crossmodal.errors import SourceError
from crossmodal.images import IMAGE_SUFFIXES
from crossmodal.sources.base import ColumnNames, Skip, Source, exists, unique_keys
from crossmodal.sources.metadata import Metadata
from crossmodal.sources.text import decode_utf8
from crossmodal.sources.walk import Directory, is_picture, walk
from crossmodal.types import MetadataValue, Record

LARGEST_SIDECAR = 2**20
SUGGESTIONS = {
    ".tar": "for shards give '{folder}/*.tar'",
    ".csv": "for a table give its path",
    ".tsv": "for a table give its path",
    ".jsonl": "for a table give its path",
    ".parquet": "for a table give its path",
    ".arrow": "for a saved dataset give 'hf:{folder}'",
}


class FolderSource(Source):
    """The pictures of a folder and of all folders below it.

    A caption file is ``NAME.txt`` beside ``NAME.jpg``, a caption per line. A metadata file names pictures
    relative to its own folder in the column ``file_name``, as Hugging Face's imagefolder has it; a picture it
    does not list has only what stands beside it.
    """

    def __init__(self, folder: Path, wanted: ColumnNames) -> None:
        super().__init__(str(folder))
        self._folder = folder
        self._metadata: list[Metadata] = []
        self._listed: dict[str, list[tuple[Metadata, int]]] = {}
        self._pictures = 0
        absent: set[str] = set()
        others: Counter[str] = Counter()
        for directory, name in walk(folder, _ignore):
            if name is None:
                others["hidden"] += directory.hidden
                absent.update(self._read_metadata(directory, wanted))
            elif is_picture(name):
                self._pictures += 1
                absent.discard(directory.prefix + name)
            else:
                others[os.path.splitext(name)[1].lower()] += 1  # noqa: PTH122
        if not self._metadata:
            wanted.refuse(self.spec, "the folder has no metadata file")
        self._absent = len(absent)
        self._must_hold_pictures(others)

    @property
    def count(self) -> int | None:
        """How many records there are; None where a metadata file gives keys, for some may be the same."""
        if any(metadata.columns.key for metadata in self._metadata):
            return None
        return self._pictures + self._absent

    def _read_metadata(self, directory: Directory, wanted: ColumnNames) -> list[str]:
        """Read the directory's metadata file, if it has one; give the pictures it lists."""
        metadata = Metadata.find(directory, wanted)
        if metadata is None:
            return []
        self._metadata.append(metadata)
        listed = list(metadata.pictures())
        for number, picture in enumerate(listed):
            self._listed.setdefault(picture, []).append((metadata, number))
        return listed

    def _must_hold_pictures(self, others: Counter[str]) -> None:
        if self._listed:
            if self._absent < len(self._listed) or any(
                exists(self._folder / picture) for picture in self._listed
            ):
                return
            files = ", ".join(str(metadata.path) for metadata in self._metadata)
            raise SourceError(
                f"{self.spec}: none of the {len(self._listed)} pictures listed in {files} exists, and "
                f"{self._pictures} others do. Tried for instance {self._folder / next(iter(self._listed))}"
            )
        if self._pictures:
            return
        hidden = others.pop("hidden", 0)
        kinds = [f"{suffix or 'no suffix'} ({n})" for suffix, n in others.most_common(8)]
        kinds += [f"hidden ({hidden})"] if hidden else []
        if not kinds:
            raise SourceError(f"{self.spec} is empty. Give a folder that holds pictures")
        hint = next(
            (f"; {text.format(folder=self.spec)}" for s, text in SUGGESTIONS.items() if s in others), ""
        )
        raise SourceError(
            f"{self.spec} holds no pictures. Files seen: {', '.join(kinds)}. "
            f"Pictures end in {', '.join(sorted(IMAGE_SUFFIXES))}{hint}"
        )

    def _records(self, skip: Skip) -> Iterator[Record]:
        if not self._metadata:
            return self._walked(skip)
        for metadata in self._metadata:
            for place, reason in metadata.bad:
                skip(place, reason, hides=True)
        return unique_keys(self._walked(skip), skip)

    def _walked(self, skip: Skip) -> Iterator[Record]:
        unseen = dict.fromkeys(self._listed)
        for directory, name in walk(self._folder, skip):
            if name is None:
                if not self._metadata:
                    _tell_orphans(directory, skip)
            elif is_picture(name):
                unseen.pop(directory.prefix + name, None)
                yield from self._of(directory.prefix + name, _sidecar(directory, name), skip)
        for picture in unseen:
            yield from self._of(picture, None, skip)

    def _of(self, picture: str, sidecar: Path | None, skip: Skip) -> Iterator[Record]:
        """Yield the records of one picture: one, unless metadata gives it several keys.

        Where its captions are there but cannot be read it is left out: without them it would look as if they
        had been taken away.
        """
        path = self._folder / picture
        for key, listed, facts in self._said_of(picture):
            try:
                captions = listed or _captions_in(sidecar)
            except ValueError as error:
                skip(key, f"captions not read: {error}")
                continue
            yield Record(key=key, image=path, captions=captions, metadata=facts, uri=str(path))

    def _said_of(self, picture: str) -> Iterator[tuple[str, tuple[str, ...], dict[str, MetadataValue]]]:
        """Yield the key, captions and metadata of each record that a picture is."""
        if picture not in self._listed:
            yield picture, (), {}
        for metadata, number in self._listed.get(picture, ()):
            key, captions, facts = metadata.parts(number)
            yield key or picture, captions, facts


def _ignore(key: str, reason: str, *, hides: bool = False) -> None:
    """Drop a reason while the folder is opened; each iteration walks again and gives it then."""


def _tell_orphans(directory: Directory, skip: Skip) -> None:
    if directory.texts:
        stems = {os.path.splitext(name)[0] for name in directory.names if is_picture(name)}  # noqa: PTH122
        for stem, text in directory.texts.items():
            if stem not in stems:
                skip(directory.prefix + text, "no picture of the same name is beside this text")


def _sidecar(directory: Directory, name: str) -> Path | None:
    """Give the text beside a picture, if there is one."""
    text = directory.texts.get(os.path.splitext(name)[0])  # noqa: PTH122
    return None if text is None else directory.path / text


def _captions_in(sidecar: Path | None) -> tuple[str, ...]:
    """Read a text of captions, one per line.

    :raises ValueError: when it cannot be read, with its name and the reason.
    """
    if sidecar is None:
        return ()
    try:
        if (size := sidecar.stat().st_size) > LARGEST_SIDECAR:
            raise ValueError(f"too large for captions, {size} bytes")
        lines = re.split(r"\r\n|\n|\r", decode_utf8(sidecar.read_bytes()))
    except OSError as error:
        raise ValueError(f"{sidecar.name}: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"{sidecar.name}: {error}") from None
    return tuple(line.strip() for line in lines if line.strip())
