"""Rows in memory, or mapped from a file: ids and vectors side by side, changed in place."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from crossmodal.index.base import Ids, Vectors
from crossmodal.index.forms import Array, Form, Stored

_GROWTH = 1.5

# Ids that fill at least a quarter of their range are looked up in a table of it: 50,000 of 100,000 rows in
# 0.03 ms, against 1.0 ms by bisection. Lance's stable row ids are such.
_TABLE_UP_TO = 4


class Rows:
    """Ids (N,) and vectors (N, D) in no particular order; the place of a row is its *position*.

    The vectors are kept in one of the forms: ``arrays`` are its parts. Replacing and removing touch only the
    rows named: a hole is filled with a row from the end. Not safe to change while another thread reads; its
    owner sees to that.
    """

    def __init__(self, form: Form, dim: int, ids: Ids, arrays: tuple[Array, ...]) -> None:
        self.form = form
        self.dim = dim
        self._ids = ids
        self._arrays: list[Any] = [
            Tailed(array) if part.read_by_row else array
            for part, array in zip(form.parts(dim), arrays, strict=True)
        ]
        self._count = len(ids)
        self._find: Callable[[Ids], Ids] | None = None

    @classmethod
    def none(cls, form: Form, dim: int) -> "Rows":
        """Give no rows, to be filled."""
        arrays = tuple(np.empty((0, part.width), part.dtype) for part in form.parts(dim))
        return cls(form, dim, np.empty(0, np.int64), arrays)

    def __len__(self) -> int:
        return self._count

    @property
    def ids(self) -> Ids:
        """The ids by position: (N,), a view."""
        return self._ids[: self._count]

    @property
    def vectors(self) -> Vectors | Stored:
        """The vectors by position: a view, (N, D); float32 as a plain array, contiguous."""
        if self.form.storage == "float32":
            plain: Vectors = self._arrays[0][: self._count]
            return plain
        return Stored(self.form, self._arrays, self._count, self.dim)

    def pieces(self) -> Iterator[Array]:
        """Give ids and arrays as they follow each other in a file, in contiguous pieces."""
        yield self.ids
        for array in self._arrays:
            if isinstance(array, Tailed):
                yield from array.pieces(self._count)
            else:
                yield array[: self._count]

    def positions(self, ids: Ids) -> Ids:
        """Give the position of each id, -1 where it is not there: int64 (len(ids),)."""
        if not self._count:
            return np.full(len(ids), -1, np.int64)
        if self._find is None:
            self._find = _finder(self.ids)
        return self._find(ids)

    def put(self, ids: Ids, vectors: Vectors) -> None:
        """Write the vectors of these unique ids: over the old where the id is there, else at the end."""
        parts = self.form.encode(vectors)
        position = self.positions(ids)
        fresh = np.flatnonzero(position < 0)
        start, stop = self._count, self._count + len(fresh)
        position[fresh] = np.arange(start, stop)
        self._reserve(stop)
        self._ids[position] = ids
        for array, part in zip(self._arrays, parts, strict=True):
            array[position] = part
        if len(fresh):
            self._count = stop
            self._find = None

    def drop(self, ids: Ids) -> int:
        """Remove the rows of these ids and give how many there were; ids may repeat or be absent."""
        position = self.positions(ids)
        gone = np.unique(position[position >= 0])
        if not len(gone):
            return 0
        left = self._count - len(gone)
        tail = np.arange(left, self._count)
        movers = tail[~np.isin(tail, gone, assume_unique=True)]
        holes = gone[gone < left]
        for array in (self._ids, *self._arrays):
            array[holes] = array[movers]
        self._count = left
        self._find = None
        return len(gone)

    def _reserve(self, rows: int) -> None:
        """Make room for so many rows; by more than asked, so that many small adds cost little."""
        for array in self._arrays:
            if isinstance(array, Tailed):
                array.reserve(rows)
        if rows <= len(self._ids):
            return
        room = max(rows, int(len(self._ids) * _GROWTH))
        self._ids = _grown(self._ids, self._count, room)
        for i, array in enumerate(self._arrays):
            if not isinstance(array, Tailed):
                self._arrays[i] = _grown(array, self._count, room)


class Tailed:
    """An array that grows without copying what it began with, which may be mapped from a file.

    It is read and written by position.
    """

    def __init__(self, head: Array) -> None:
        self._head = head
        self._tail = head[:0].copy()

    def __getitem__(self, at: slice | Ids) -> Array:
        at = np.arange(at.start or 0, at.stop) if isinstance(at, slice) else at
        if not len(self._tail):
            return self._head[at]
        out = np.empty((len(at), *self._head.shape[1:]), self._head.dtype)
        behind = at >= len(self._head)
        out[~behind] = self._head[at[~behind]]
        out[behind] = self._tail[at[behind] - len(self._head)]
        return out

    def __setitem__(self, at: Ids, rows: Array) -> None:
        behind = at >= len(self._head)
        self._head[at[~behind]] = rows[~behind]
        self._tail[at[behind] - len(self._head)] = rows[behind]

    def reserve(self, rows: int) -> None:
        """Make room for so many rows, and for more."""
        lacking = rows - len(self._head)
        if lacking > len(self._tail):
            room = max(lacking, int(len(self._tail) * _GROWTH))
            self._tail = _grown(self._tail, len(self._tail), room)

    def pieces(self, count: int) -> Iterator[Array]:
        """Give the first ``count`` rows in contiguous pieces."""
        yield self._head[:count]
        yield self._tail[: max(0, count - len(self._head))]


def _grown(array: Array, count: int, room: int) -> Array:
    """Give a larger array that begins with the first ``count`` rows of this one."""
    grown = np.empty((room, *array.shape[1:]), array.dtype)
    grown[:count] = array[:count]
    return grown


def _finder(known: Ids) -> Callable[[Ids], Ids]:
    """Give a function from ids to their positions in ``known``, -1 where they are not there."""
    before = int(known.min()) - 1
    reach = int(known.max()) - before + 2
    if reach <= _TABLE_UP_TO * len(known) + 2:
        # One place before the smallest id and one after the largest stand for all that lie outside.
        table = np.full(reach, -1, np.int64)
        table[known - before] = np.arange(len(known))
        return lambda ids: table.take(ids - before, mode="clip")
    position = np.argsort(known)
    ordered = known[position]

    def bisect(ids: Ids) -> Ids:
        place = np.minimum(np.searchsorted(ordered, ids), len(ordered) - 1)
        return np.where(ordered[place] == ids, position[place], -1)

    return bisect
