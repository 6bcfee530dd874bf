"""Where pairs come from. ``open_source`` gives an iterable of records for a folder, a table, shards, ..."""

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path

from crossmodal.errors import SourceError, unknown
from crossmodal.sources.base import ColumnNames, Source, absolute, exists, no_such_path
from crossmodal.sources.uris import is_there, read_uri

__all__ = ["Source", "is_there", "open_source", "read_uri"]

logger = logging.getLogger("crossmodal")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)(?::(.*))?", re.DOTALL)  # one letter would be a Windows drive


def open_source(
    spec: str | os.PathLike[str],
    *,
    image_column: str | None = None,
    caption_column: str | None = None,
    key_column: str | None = None,
) -> Source:
    """Open a source of pairs.

    :param spec: a folder of pictures; a ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet`` file; a tar file or a
        pattern of some (``shards/{000..009}.tar``); ``hf:NAME_OR_DIR[:SPLIT]``;
        ``karpathy:dataset_coco.json?images=DIR&split=test``; ``sample[:train|validation|test]``.
    :param caption_column: may name several, separated by commas.
    :raises SourceError: when there is no such source, or it cannot be read as asked.
    """
    wanted = ColumnNames(image=image_column, caption=caption_column, key=key_column)
    text = os.fspath(spec)
    if not text or "\0" in text:
        raise SourceError(
            f"{text!r} names no source. Give a folder of pictures, a table, tar shards or 'sample'"
        )
    match = _SCHEME.fullmatch(text) if isinstance(spec, str) else None
    if match and match[1] in SCHEMES and (match[2] is not None or match[1] == "sample"):
        return SCHEMES[match[1]](match[2] or "", wanted)
    if match and match[2] is not None and not exists(absolute(text)) and "/" not in match[1]:
        raise SourceError(f"{text}: {unknown('kind of source', match[1] + ':', [f'{s}:' for s in SCHEMES])}")
    return _open_path(text, wanted)


def _open_path(text: str, wanted: ColumnNames) -> Source:
    from crossmodal.sources.shards import is_pattern, open_shards
    from crossmodal.sources.tars import is_tar

    path = absolute(text)
    there = exists(path)
    if there and path.is_dir():
        from crossmodal.sources.folder import FolderSource

        return FolderSource(path, wanted)
    if is_tar(path) or (is_pattern(text) and not there):
        wanted.refuse(text, "the members of a shard are named, not its columns")
        return open_shards(text)
    if not there:
        raise no_such_path(path)
    _refuse_other_files(path)
    from crossmodal.sources.table import open_table

    return open_table(path, wanted)


def _refuse_other_files(path: Path) -> None:
    from crossmodal.images import IMAGE_SUFFIXES
    from crossmodal.sources.formats import READERS
    from crossmodal.sources.tars import TAR_SUFFIXES

    suffix = path.suffix.lower()
    if suffix in READERS:
        return
    if suffix in IMAGE_SUFFIXES:
        raise SourceError(f"{path} is a single picture. Give its folder, {path.parent}")
    if suffix == ".json":
        raise SourceError(
            f"{path}: a .json file is read as a Karpathy split file: karpathy:{path}?images=DIR&split=test. "
            "A table of JSON objects, one per line, ends in .jsonl"
        )
    raise SourceError(f"{path}: {unknown('kind of file', suffix or path.name, (*READERS, *TAR_SUFFIXES))}")


def _open_sample(rest: str, wanted: ColumnNames) -> Source:
    from crossmodal.sources.sample import SampleSource

    wanted.refuse("sample", "its columns are known")
    name = f"sample:{rest}" if rest else "sample"
    if exists(absolute(name)):
        logger.warning("%r is read as the bundled sample. For %s write './%s'", name, absolute(name), name)
    return SampleSource(rest or None)


def _open_hub(rest: str, wanted: ColumnNames) -> Source:
    from crossmodal.sources.hub import HubSource

    return HubSource(rest, wanted)


def _open_karpathy(rest: str, wanted: ColumnNames) -> Source:
    from crossmodal.sources.karpathy import KarpathySource
    from crossmodal.sources.specs import split_options

    spec = f"karpathy:{rest}"
    wanted.refuse(spec, "its fields are known")
    path, options = split_options(rest, ("images", "split"), spec)
    if not path or "images" not in options:
        raise SourceError(
            f"{spec}: expected karpathy:FILE.json?images=DIR&split=test; quote it, for & ends a command"
        )
    return KarpathySource(absolute(path), absolute(options["images"]), options.get("split"))


SCHEMES: dict[str, Callable[[str, ColumnNames], Source]] = {
    "hf": _open_hub,
    "karpathy": _open_karpathy,
    "sample": _open_sample,
}
"""What stands before the colon, and what opens it; anything without is a path."""
