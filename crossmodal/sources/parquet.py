"""Parquet: small columns whole, pictures one at a time."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from crossmodal.errors import SourceError
from crossmodal.sources.base import first_line, refused
from crossmodal.sources.rows import Rows

Picture: TypeAlias = tuple[bytes | None, str | None]
"""What a cell holds of a picture: the bytes of its file, the path of its file, either or both."""

PICTURES_AT_ONCE = 16
BUFFER = 2**20
ROW_NUMBERS_OF_PANDAS = "__index_level_"


class Pictures(Protocol):
    """A column of pictures that is too large for memory."""

    def read(self, rows: Sequence[int]) -> Iterator[Picture]:
        """Yield the pictures of some rows, which ascend."""
        ...

    def paths(self) -> list[str | None]:
        """Give the file name that each picture came with."""
        ...


def read_parquet(path: Path) -> Rows:
    """Read all columns of a Parquet file but those of bytes.

    :raises SourceError: when it is no Parquet file or is damaged.
    """
    with open_parquet(path) as file:
        schema = file.schema_arrow
        opaque = tuple(field.name for field in schema if holds_bytes(field.type))
        names = [name for name in schema.names if not name.startswith(ROW_NUMBERS_OF_PANDAS)]
        small = [name for name in names if name not in opaque]
        try:
            table = file.read(columns=small)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(path, error) from error
    return Rows(
        path=path,
        names=tuple(names),
        table=plain(table.select(small), file.metadata.num_rows),
        pictures=tuple(field.name for field in schema if holds_picture(field.type)),
        opaque=opaque,
    )


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a Parquet file without reading ahead."""
    try:
        return pq.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER)
    except pa.ArrowException as error:
        raise _damaged(path, error) from error
    except OSError as error:
        raise refused(path, error) from error


class ParquetPictures:
    """The pictures in a column of a Parquet file: bytes, or ``{bytes, path}`` as Hugging Face writes them."""

    def __init__(self, path: Path, column: str) -> None:
        self.path = path
        self.column = column

    def read(self, rows: Sequence[int]) -> Iterator[Picture]:
        """Yield the pictures of some rows, which ascend; a few are in memory at any moment."""
        wanted = iter(rows)
        row = next(wanted, None)
        with open_parquet(self.path) as file:
            start = 0
            for group in range(file.num_row_groups):
                end = start + file.metadata.row_group(group).num_rows
                first = start
                start = end
                if row is None or row >= end:
                    continue
                for batch in self._batches(file, group):
                    while row is not None and row < first + len(batch):
                        yield picture_in(batch[row - first].as_py())
                        row = next(wanted, None)
                    first += len(batch)
                    if row is None or row >= end:
                        break

    def _batches(self, file: pq.ParquetFile, group: int) -> Iterator[pa.Array]:
        try:
            for batch in file.iter_batches(PICTURES_AT_ONCE, row_groups=[group], columns=[self.column]):
                yield batch.column(0)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(self.path, error) from error

    def paths(self) -> list[str | None]:
        """Give the file name that each picture came with; nothing else is read."""
        with open_parquet(self.path) as file:
            kind = file.schema_arrow.field(self.column).type
            if not (pa.types.is_struct(kind) and kind.get_field_index("path") >= 0):
                return [None] * int(file.metadata.num_rows)
            column = file.read(columns=[f"{self.column}.path"]).column(0)
            return [cell and cell["path"] for cell in column.to_pylist()]


def picture_in(cell: Any) -> Picture:
    """Give what a cell holds of a picture."""
    if isinstance(cell, dict):
        return cell.get("bytes"), cell.get("path")
    if isinstance(cell, str):
        return None, cell
    return cell, None


def holds_picture(kind: pa.DataType) -> bool:
    """Say whether cells of this type are the bytes of a picture, alone or beside its path."""
    if pa.types.is_struct(kind):
        at = kind.get_field_index("bytes")
        return at >= 0 and _is_binary(kind.field(at).type)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def holds_bytes(kind: pa.DataType) -> bool:
    """Say whether there are raw bytes anywhere in a type."""
    return _is_binary(kind) or any(holds_bytes(kind.field(i).type) for i in range(kind.num_fields))


def plain(table: pa.Table, length: int) -> pa.Table:
    """Cut times to microseconds, as Python's own times are, and give a table without columns its length."""
    if not table.num_columns:
        return pa.table({"": pa.nulls(length)})
    for number, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type) and field.type.unit == "ns":
            kind = pa.timestamp("us", field.type.tz)
            table = table.set_column(number, field.name, table.column(number).cast(kind, safe=False))
    return table


def _damaged(path: Path, error: Exception) -> SourceError:
    return SourceError(f"{path} is no Parquet file or is damaged: {first_line(error)}")
