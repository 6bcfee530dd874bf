"""A table in memory: its small columns, the place of each row, and what of it did not parse."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A table without its picture bytes.

    ``lines`` holds the line each row begins in, or None where a format has no lines. ``bad`` lists what did
    not parse: ``(place, reason)``. ``opaque`` are the columns of raw bytes, which are not in ``table``, and
    ``pictures`` those among them whose cells are pictures. ``written`` says that all cells are still text, as
    somebody wrote it.
    """

    path: Path
    names: tuple[str, ...]
    table: pa.Table
    lines: Integers | None = None
    bad: tuple[tuple[str, str], ...] = ()
    pictures: tuple[str, ...] = ()
    opaque: tuple[str, ...] = ()
    written: bool = False

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def place(self, row: int) -> str:
        """Say where a row is, for messages: ``pairs.csv line 7``."""
        if self.lines is None:
            return f"{self.path.name} row {row}"
        return f"{self.path.name} line {self.lines[row]}"

    def take(self, rows: Integers) -> list[dict[str, Any]]:
        """Give some rows as Python values, by column."""
        taken: list[dict[str, Any]] = self.table.take(pa.array(rows)).to_pylist()
        return taken


def codes_of(column: pa.ChunkedArray) -> tuple[Integers, list[Any]]:
    """Number the distinct values of a column: each row's number (-1 for a null), and the values."""
    encoded = column.combine_chunks().dictionary_encode()
    codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes, encoded.dictionary.to_pylist()


class Groups:
    """Rows that belong together, in the order of each group's first row; rows of a group ascend.

    :param identity: one number per row of ``rows``; rows that share it are one group.

    >>> groups = Groups(np.array([7, 3, 7]), np.array([0, 1, 2]))
    >>> [group.tolist() for group in groups.some(0, 2)]
    [[0, 2], [1]]
    """

    def __init__(self, identity: Integers, rows: Integers) -> None:
        # Dictionary codes count up in the order of first appearance, so a stable sort by them does it.
        codes = pa.array(identity).dictionary_encode().indices.to_numpy().astype(np.int64)
        self._rows = rows[np.argsort(codes, kind="stable")]
        self._starts = np.append(np.flatnonzero(np.diff(np.sort(codes), prepend=-1)), len(rows))

    def __len__(self) -> int:
        return len(self._starts) - 1

    @property
    def first_rows(self) -> Integers:
        """The first row of each group: (groups,), ascending."""
        first: Integers = self._rows[self._starts[:-1]]
        return first

    def some(self, start: int, stop: int) -> list[Integers]:
        """Give the groups from ``start`` up to ``stop``."""
        bounds = self._starts[start : stop + 1]
        return [self._rows[a:b] for a, b in itertools.pairwise(bounds.tolist())]
