"""The metadata file of a folder of pictures, as Hugging Face's imagefolder has it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from crossmodal.errors import SourceError
from crossmodal.sources.base import ColumnNames
from crossmodal.sources.columns import Columns, find_columns
from crossmodal.sources.delimited import with_types
from crossmodal.sources.formats import read_rows
from crossmodal.sources.grouping import identity_of, key_in, named_pictures, record_parts
from crossmodal.sources.rows import Groups, Integers, Rows
from crossmodal.sources.walk import Directory
from crossmodal.types import MetadataValue

NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What one metadata file says, by the pictures it lists; they lie in its own folder or below."""

    path: Path
    prefix: str
    columns: Columns
    bad: tuple[tuple[str, str], ...]
    _rows: Rows
    _groups: Groups
    _names: list[str]
    _codes: Integers

    @classmethod
    def find(cls, directory: Directory, wanted: ColumnNames) -> "Metadata | None":
        """Read the metadata file of a directory, if there is one.

        :raises SourceError: when there are two, or it cannot be used.
        """
        there = [name for name in NAMES if name in directory.names]
        if not there:
            return None
        if len(there) > 1:
            raise SourceError(f"{directory.path} holds {' and '.join(there)}. Keep one of them")
        path = directory.path / there[0]
        rows = read_rows(path)
        names = [name for name in rows.names if name not in rows.opaque]
        if wanted.image is None and "file_name" in names:
            wanted = replace(wanted, image="file_name")
        columns = find_columns(names, wanted, str(path))
        rows = with_types(rows, columns.texts)
        pictures, codes, reasons = named_pictures(rows, columns.image, directory.path, inside=True)
        if not pictures:
            raise SourceError(
                f"{path}: no picture in any of its {len(rows)} rows: {next(iter(reasons.values()))}"
            )
        usable = np.flatnonzero(codes >= 0)
        return cls(
            path=path,
            prefix=directory.prefix,
            columns=columns,
            bad=(*rows.bad, *((rows.place(row), reason) for row, reason in reasons.items())),
            _rows=rows,
            _groups=Groups(identity_of(rows, columns, codes)[usable], usable),
            _names=pictures,
            _codes=codes,
        )

    def pictures(self) -> Iterator[str]:
        """Yield the picture of each group of rows, relative to the source's folder."""
        for row in self._groups.first_rows.tolist():
            yield self.prefix + self._names[self._codes[row]]

    def parts(self, number: int) -> tuple[str | None, tuple[str, ...], dict[str, MetadataValue]]:
        """Give the key (if the file has one), the captions and the metadata of a group of rows."""
        rows = self._rows.take(self._groups.some(number, number + 1)[0])
        return (key_in(rows[0], self.columns), *record_parts(rows, self.columns))
