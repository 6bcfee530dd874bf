"""The bundled sample: public-domain drawings of OpenClipart, each with a title of its own."""

from collections.abc import Iterator
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np

from crossmodal.errors import SourceError, unknown
from crossmodal.sources.base import Skip, Source
from crossmodal.sources.columns import captions_from, metadata_value
from crossmodal.sources.parquet import ParquetPictures, read_parquet
from crossmodal.sources.rows import Rows
from crossmodal.types import Record

SPLITS = ("train", "validation", "test")
FACTS = ("description", "author", "category", "split")


def sample_path() -> Path:
    """Say where the sample lies in the installed package."""
    return Path(str(files("crossmodal") / "sample" / "openclipart.parquet"))


class SampleSource(Source):
    """The drawings of one split, or of all; the caption is the title."""

    def __init__(self, split: str | None) -> None:
        """Open the sample.

        :raises SourceError: when the split is unknown or the package came without its sample.
        """
        super().__init__(f"sample:{split}" if split else "sample")
        if split is not None and split not in SPLITS:
            raise SourceError(unknown("split of the sample", split, SPLITS))
        self._path = _existing_path()
        self._table = read_parquet(self._path)
        splits = np.array(self._table.table.column("split").to_pylist())
        self._rows = np.flatnonzero(splits == split) if split else np.arange(len(splits))

    @property
    def count(self) -> int:
        """How many records there are."""
        return len(self._rows)

    def _records(self, skip: Skip) -> Iterator[Record]:
        pictures = ParquetPictures(self._path, "image").read(self._rows.tolist())
        for row, (content, _) in zip(self._table.take(self._rows), pictures, strict=True):
            if not content:
                skip(row["key"], "no picture in the sample's file")
                continue
            facts = {name: metadata_value(row[name]) for name in FACTS}
            yield Record(
                key=row["key"],
                image=content,
                captions=captions_from(row["title"]),
                metadata={**facts, "keywords": ", ".join(row["keywords"] or ())},
                uri=f"sample:{row['key']}",
            )


def read_sample(key: str) -> bytes:
    """Give the bytes of one drawing.

    :raises SourceError: when there is none with this key.
    """
    path = _existing_path()
    row = _row_numbers(path, path.stat().st_mtime_ns).get(key)
    if row is None:
        raise SourceError(f"The sample has no picture {key!r}")
    content, _ = next(ParquetPictures(path, "image").read([row]))
    if not content:
        raise SourceError(f"The sample holds no bytes for {key!r}")
    return content


def _existing_path() -> Path:
    path = sample_path()
    if not path.is_file():
        raise SourceError(f"The bundled sample is missing ({path}). Install crossmodal-retrieval again")
    return path


@lru_cache(maxsize=2)
def _row_numbers(path: Path, changed: int) -> dict[str, int]:
    rows: Rows = read_parquet(path)
    return {key: row for row, key in enumerate(rows.table.column("key").to_pylist())}
