"""CSV and TSV: every cell as it is written, bad rows listed by line, types by whole columns.

No type is guessed from a first block of rows: a column is one of numbers, truth values or dates only if every
row agrees, and stays text otherwise. So ``007`` and ``NA`` stay what they are.
"""

import csv
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crossmodal.errors import SourceError
from crossmodal.sources.rows import Rows
from crossmodal.sources.text import utf8_lines

DELIMITERS = (",", ";", "\t", "|")
BLOCK = 8192

LARGEST_EXACT = 2**53
"""Up to here a float holds every integer."""

MISSING = ("", "nan", "NaN", "NA", "null")
"""What stands for a missing cell in a column of numbers, truth values or dates."""

_CLOCK = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?"
KINDS = (
    (r"^(?i:true|false)$", pa.bool_()),
    (r"^-?(0|[1-9][0-9]*)$", pa.int64()),
    (r"^-?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$", pa.float64()),
    (r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$", pa.date32()),
    (rf"^{_CLOCK}$", pa.timestamp("us")),
    (rf"^{_CLOCK}(Z|[+-][0-9]{{2}}:?[0-9]{{2}})$", pa.timestamp("us", tz="UTC")),
)
"""How cells of a type are written. Leading zeros are no number: they belong to codes."""


class _Lines:
    """Lines that can be taken back: after a broken row, reading goes on in the line below where it began."""

    def __init__(self, lines: Iterator[str]) -> None:
        self.number = 0
        self._lines = lines
        self._taken: list[str] = []
        self._returned: deque[str] = deque()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._returned.popleft() if self._returned else next(self._lines)
        self._taken.append(line)
        self.number += 1
        return line

    def keep(self) -> None:
        self._taken.clear()

    def take_back(self) -> None:
        """Give back all lines since the last ``keep`` but the first."""
        self.number -= len(self._taken) - 1
        self._returned.extendleft(reversed(self._taken[1:]))
        self._taken.clear()


def _cells(path: Path, delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    """Yield the line each row begins in, and its cells or the reason why there are none."""
    lines = _Lines(utf8_lines(path))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        start = lines.number + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            lines.take_back()
            yield start, f"not proper CSV: {error}"
            continue
        lines.keep()
        if row:
            yield start, row


def read_delimited(path: Path) -> Rows:
    """Read a table of text with a header; the delimiter of a ``.csv`` is the one its header is written with.

    :raises SourceError: when it is not UTF-8 or its header is of no use.
    """
    rows = _cells(path, _delimiter(path))
    names = _header(path, next(rows, (1, [])))
    lines: list[int] = []
    bad: list[tuple[str, str]] = []
    block: list[list[str]] = []
    chunks: list[list[pa.Array]] = [[] for _ in names]

    def flush() -> None:
        for chunk, cells in zip(chunks, zip(*block, strict=True), strict=False):
            chunk.append(pa.array(cells, pa.large_string()))
        block.clear()

    for line, row in rows:
        if isinstance(row, str):
            bad.append((f"{path.name} line {line}", row))
        elif len(row) != len(names):
            reason = f"{len(row)} fields where the header has {len(names)}"
            bad.append((f"{path.name} line {line}", reason))
        else:
            lines.append(line)
            block.append(row)
            if len(block) == BLOCK:
                flush()
    flush()
    table = {
        name: pa.chunked_array(chunk, pa.large_string())
        for name, chunk in zip(names, chunks, strict=True)
        if name  # a column without a name is the row number that pandas writes
    }
    return Rows(
        path=path,
        names=tuple(table),
        table=pa.table(table).combine_chunks(),
        lines=np.array(lines, np.int64),
        bad=tuple(bad),
        written=True,
    )


def _delimiter(path: Path) -> str:
    if path.suffix.lower() == ".tsv":
        return "\t"
    header = next(utf8_lines(path), "")
    return next((mark for mark in DELIMITERS if mark in header), ",")


def _header(path: Path, first: tuple[int, list[str] | str]) -> list[str]:
    cells = first[1]
    if isinstance(cells, str):
        raise SourceError(f"{path}: its header is {cells}")
    names = [cell.strip() for cell in cells]
    if not any(names):
        raise SourceError(
            f"{path} has no header. The first line names the columns, for instance image,caption"
        )
    if twice := {name for name in names if name and names.count(name) > 1}:
        raise SourceError(f"{path} has more than one column called {min(twice)!r}. Rename all but one")
    return names


def with_types(rows: Rows, keep: Collection[str]) -> Rows:
    """Give written cells the type that their whole column allows; those of the columns ``keep`` stay text."""
    if not rows.written:
        return rows
    table = rows.table
    for number, name in enumerate(table.column_names):
        if name not in keep:
            table = table.set_column(number, name, typed_column(table.column(number)))
    return replace(rows, table=table, written=False)


def typed_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Give a column of text the one type that all its cells have; empty cells become nulls.

    >>> typed_column(pa.chunked_array([["3", "", "41"]])).to_pylist()
    [3, None, 41]
    >>> typed_column(pa.chunked_array([["3", "", "x"]])).to_pylist()
    ['3', None, 'x']
    """
    nothing = pa.scalar(None, column.type)
    missing = pc.is_in(column, value_set=pa.array(MISSING, column.type))
    present = column.filter(pc.invert(missing))
    for pattern, kind in KINDS if len(present) else ():
        if pc.all(pc.match_substring_regex(present, pattern)).as_py():
            if kind == pa.float64() and _holds_large_integer(present):
                break
            try:
                return pc.if_else(missing, nothing, column).cast(kind)
            except pa.ArrowInvalid:
                break  # an integer past 64 bits, or a 31st of February: text, for nothing may be rounded
    return pc.if_else(pc.equal(column, ""), nothing, column)


def _holds_large_integer(column: pa.ChunkedArray) -> bool:
    """Say whether a float would round one of the integers in a column of text."""
    long = column.filter(pc.match_substring_regex(column, r"^-?[0-9]{16,}$"))
    return any(abs(Decimal(text)) > LARGEST_EXACT for text in long.to_pylist())
