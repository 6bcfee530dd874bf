"""A table of pictures and captions: CSV, TSV, JSON Lines or Parquet.

The picture's column holds paths, relative to the table's file, or (in Parquet) the bytes of picture files.
Rows of the same picture are one record with several captions, wherever they stand.
"""

import hashlib
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from crossmodal.errors import SourceError
from crossmodal.sources.base import ColumnNames, Skip, Source, exists, no_such_path, unique_keys
from crossmodal.sources.columns import Columns, find_columns
from crossmodal.sources.delimited import with_types
from crossmodal.sources.formats import read_rows
from crossmodal.sources.grouping import (
    distinct_keys,
    grouped_rows,
    identity_of,
    key_in,
    named_pictures,
    record_parts,
)
from crossmodal.sources.parquet import ParquetPictures, Picture, Pictures, holds_picture, open_parquet
from crossmodal.sources.rows import Groups, Integers, Rows
from crossmodal.types import Record


def open_table(path: Path, wanted: ColumnNames) -> Source:
    """Open a table by its path.

    :raises SourceError: when it lacks a column it needs, holds nothing, or none of its pictures exists.
    """
    rows = read_rows(path)
    columns = find_columns(rows.names, wanted, str(path), rows.pictures, rows.opaque)
    rows = with_types(rows, columns.texts)
    if columns.image not in rows.opaque:
        return PathTable(str(path), rows, columns, path.parent)
    if columns.image not in rows.pictures:
        raise SourceError(f"{path}: the column {columns.image!r} holds neither paths nor single pictures")
    usual = find_columns(rows.names, ColumnNames(), str(path), rows.pictures, rows.opaque).image
    suffix = "" if columns.image == usual else f":{columns.image}"
    return BytesTable(
        str(path),
        rows,
        columns,
        ParquetPictures(path, columns.image),
        uri=lambda row: f"{path}#{row}{suffix}",
        root=path.parent,
    )


class PathTable(Source):
    """A table that names its pictures by their paths."""

    def __init__(self, spec: str, rows: Rows, columns: Columns, root: Path) -> None:
        super().__init__(spec)
        self._rows = rows
        self._columns = columns
        self._root = root
        self._names, self._codes, self._reasons = named_pictures(rows, columns.image, self._root)
        usable = np.flatnonzero(self._codes >= 0)
        self._groups = Groups(identity_of(rows, columns, self._codes)[usable], usable)
        self._must_exist()

    @cached_property
    def count(self) -> int:
        """How many records there are."""
        return distinct_keys(self._rows, self._columns, self._groups)

    def _must_exist(self) -> None:
        if not self._names:
            reason = next(iter(self._reasons.values()))
            raise SourceError(f"{self.spec}: no picture in any of its {len(self._rows)} rows: {reason}")
        if not any(exists(self._root / name) for name in self._names):
            raise SourceError(
                f"{self.spec}: none of the {len(self._names)} pictures it names exists. Tried for instance "
                f"{self._root / self._names[0]}. Relative paths start at the table's folder"
            )

    def _records(self, skip: Skip) -> Iterator[Record]:
        for place, reason in self._rows.bad:
            skip(place, reason, hides=True)
        for row, reason in self._reasons.items():
            skip(self._rows.place(row), reason)
        # Names of pictures are distinct already.
        return unique_keys(self._grouped(), skip) if self._columns.key else self._grouped()

    def _grouped(self) -> Iterator[Record]:
        for group, rows in grouped_rows(self._rows, self._groups):
            name = self._names[self._codes[group[0]]]
            path = self._root / name
            captions, metadata = record_parts(rows, self._columns)
            yield Record(
                key=key_in(rows[0], self._columns) or name,
                image=path,
                captions=captions,
                metadata=metadata,
                uri=str(path),
            )


class BytesTable(Source):
    """A table that holds the picture files themselves; they are read one by one, as they are asked for."""

    def __init__(
        self,
        spec: str,
        rows: Rows,
        columns: Columns,
        pictures: Pictures,
        *,
        uri: Callable[[int], str],
        root: Path,
        prefix: str = "",
    ) -> None:
        """Take the parts of a table.

        :param uri: gives the uri of a row.
        :param root: where relative paths of pictures kept outside the table start.
        :param prefix: what precedes a key that is a picture's name or the number of its row.
        """
        super().__init__(spec)
        self._rows = rows
        self._columns = columns
        self._pictures = pictures
        self._uri = uri
        self._root = root
        self._prefix = prefix

    @property
    def count(self) -> int | None:
        """How many records there are, or None as long as it takes reading pictures to know."""
        if "_groups" not in self.__dict__ and len(self._alike):
            return None
        return distinct_keys(self._rows, self._columns, self._groups)

    @cached_property
    def _paths(self) -> list[str | None]:
        return self._pictures.paths()

    @cached_property
    def _alike(self) -> Integers:
        """Rows that may hold the same picture as another: those that share their name, or have none."""
        if self._columns.key and self._columns.key_decides:
            labels = [str(v) for v in self._rows.table.column(self._columns.key).to_pylist()]
        else:
            labels = [path or "" for path in self._paths]
        counts: dict[str, int] = {}
        for label in labels:
            counts[label] = counts.get(label, 0) + 1
        return np.array([i for i, label in enumerate(labels) if not label or counts[label] > 1], np.int64)

    @cached_property
    def _groups(self) -> Groups:
        """The rows of each record; pictures that may be alike are compared by a digest of their bytes."""
        every = np.arange(len(self._rows), dtype=np.int64)
        codes = every.copy()
        first_with: dict[bytes, int] = {}
        alike = self._alike.tolist()
        for row, picture in zip(alike, self._pictures.read(alike), strict=True):
            if content := picture_content(picture):
                digest = hashlib.blake2b(content, digest_size=16).digest()
                codes[row] = first_with.setdefault(digest, row)
        return Groups(identity_of(self._rows, self._columns, codes), every)

    def _records(self, skip: Skip) -> Iterator[Record]:
        for place, reason in self._rows.bad:
            skip(place, reason, hides=True)
        return unique_keys(self._grouped(skip), skip)

    def _grouped(self, skip: Skip) -> Iterator[Record]:
        named: set[str] = set()
        any_picture = False
        pictures = self._pictures.read(self._groups.first_rows.tolist())
        for (group, rows), picture in zip(grouped_rows(self._rows, self._groups), pictures, strict=True):
            row = int(group[0])
            image, uri = self._image(picture, row)
            if image is None:
                skip(self._rows.place(row), "no picture in its cell")
                continue
            any_picture = True
            captions, metadata = record_parts(rows, self._columns)
            yield Record(
                key=key_in(rows[0], self._columns) or self._name(row, named),
                image=image,
                captions=captions,
                metadata=metadata,
                uri=uri,
            )

        if not any_picture:
            raise SourceError(
                f"{self.spec}: no picture in any of the {len(self._rows)} cells of {self._columns.image!r}"
            )

    def _image(self, picture: Picture, row: int) -> tuple[bytes | Path | None, str]:
        content, path = picture
        if content:
            return content, self._uri(row)
        if path:
            return self._root / path, str(self._root / path)
        return None, ""

    def _name(self, row: int, named: set[str]) -> str:
        """Give a key from the picture's file name or, where it has none of its own, the row."""
        path = own_name(self._paths[row] or "", self._root)
        if not path:
            return f"{self._prefix}{row}"
        if path in named:
            return f"{self._prefix}{path}#{row}"
        named.add(path)
        return self._prefix + path


def own_name(path: str, root: Path) -> str:
    """Give the name that a path beside picture bytes stands for: an absolute one is another machine's."""
    if Path(path).is_relative_to(root):
        return Path(path).relative_to(root).as_posix()
    return Path(path).name if path.startswith("/") or "://" in path else path


def picture_content(picture: Picture) -> bytes:
    """Give what tells a picture from another: its bytes, or else its path."""
    content, path = picture
    return content or (path or "").encode()


def read_parquet_row(path: Path, fragment: str) -> bytes:
    """Give the picture in a row of a Parquet file.

    :param fragment: the row's number, and a colon and the column where it is not the usual one.
    :raises SourceError: when there is no such file, row or column, or the row holds no bytes.
    """
    if not path.is_file():
        raise no_such_path(path, "table")
    number, _, column = fragment.partition(":")
    with open_parquet(path) as file:
        schema, length = file.schema_arrow, file.metadata.num_rows
    if not number.isdecimal() or int(number) >= length:
        raise SourceError(f"{path} has no row {fragment!r}; it holds {length} rows")
    pictures = [field.name for field in schema if holds_picture(field.type)]
    name = find_columns(schema.names, ColumnNames(image=column or None), str(path), pictures).image
    if name not in pictures:
        raise SourceError(f"{path}: the column {name!r} holds no pictures")
    content, _ = next(ParquetPictures(path, name).read([int(number)]))
    if not content:
        raise SourceError(f"{path} row {number} holds no picture")
    return content
