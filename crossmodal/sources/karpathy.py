"""Karpathy splits of COCO, Flickr30K and Flickr8K: a ``dataset_*.json`` and a folder of pictures.

``karpathy:dataset_coco.json?images=DIR&split=test``, after Karpathy and Fei-Fei (2015). In COCO, ``restval``
are pictures that most papers add to ``train``; they come only where asked for: ``split=train+restval``.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crossmodal.errors import SourceError, unknown
from crossmodal.sources.base import Skip, Source, exists, no_such_path, read_bytes, unique_keys
from crossmodal.sources.columns import captions_from
from crossmodal.sources.specs import with_options
from crossmodal.types import Record

KEPT = frozenset({"images", "filename", "filepath", "split", "sentences", "raw", "imgid", "cocoid"})
"""The fields that are read; the tokens of each caption would take most of the memory."""


class KarpathySource(Source):
    """The pictures of some splits, five captions each or so; the key is the picture's file name."""

    def __init__(self, path: Path, images: Path, split: str | None) -> None:
        """Read the file.

        :param split: one split, several joined by ``+``, or None for all.
        :raises SourceError: when the file is not of this kind, a split is unknown, or no picture exists.
        """
        super().__init__(with_options(f"karpathy:{path}", images=str(images), split=split))
        self._images = images
        self._entries = _of_split(_read(path), split, path)
        if not images.is_dir():
            raise no_such_path(images, "folder of pictures")
        if not any(exists(self._file(entry)) for entry in self._entries):
            raise SourceError(
                f"{self.spec}: none of the {len(self._entries)} pictures is in {images}. Tried for instance "
                f"{self._file(self._entries[0])}"
            )

    @property
    def count(self) -> int:
        """How many records there are."""
        return len({entry["filename"] for entry in self._entries})

    def _file(self, entry: dict[str, Any]) -> Path:
        """Give a picture's path: COCO's lie in folders of their own, unless somebody put them all in one."""
        flat = self._images / str(entry["filename"])
        nested = self._images / str(entry.get("filepath") or "") / str(entry["filename"])
        return nested if exists(nested) or not exists(flat) else flat

    def _records(self, skip: Skip) -> Iterator[Record]:
        return unique_keys(map(self._record, self._entries), skip)

    def _record(self, entry: dict[str, Any]) -> Record:
        path = self._file(entry)
        return Record(
            key=entry["filename"],
            image=path,
            captions=captions_from(entry.get("sentences")),
            metadata={name: entry[name] for name in ("imgid", "cocoid", "split") if name in entry},
            uri=str(path),
        )


def _of_split(entries: list[dict[str, Any]], split: str | None, path: Path) -> list[dict[str, Any]]:
    if split is None:
        return entries
    wanted = set(split.split("+"))
    there = {str(entry.get("split")) for entry in entries}
    if absent := sorted(wanted - there):
        raise SourceError(f"{path}: {unknown('split', absent[0], there)}")
    return [entry for entry in entries if str(entry.get("split")) in wanted]


def _keep(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name in KEPT}


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        data = json.loads(read_bytes(path), object_hook=_keep)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path} is not JSON: {error}") from error
    entries = data.get("images") if isinstance(data, dict) else None
    if isinstance(entries, list) and entries and all(map(_is_entry, entries)):
        return entries
    raise SourceError(
        f"{path} is no Karpathy split file: expected 'images', a list of objects with 'filename'"
    )


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("filename"), str)
