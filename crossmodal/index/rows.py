"""Rows in memory, or mapped from a file: ids and vectors side by side, changed in place."""

from collections.abc import Callable

import numpy as np

from crossmodal.index.base import Ids, Vectors

_GROWTH = 1.5

# Ids that fill at least a quarter of their range are looked up in a table of it: 50,000 of 100,000 rows in
# 0.03 ms, against 1.0 ms by bisection. Lance's stable row ids are such.
_TABLE_UP_TO = 4


class Rows:
    """Ids (N,) and vectors (N, D) in no particular order; the place of a row is its *position*.

    Replacing and removing touch only the rows named: a hole is filled with a row from the end. Not safe to
    change while another thread reads; its owner sees to that.
    """

    def __init__(self, ids: Ids, vectors: Vectors) -> None:
        self._ids = ids
        self._vectors = vectors
        self._count = len(ids)
        self._find: Callable[[Ids], Ids] | None = None

    def __len__(self) -> int:
        return self._count

    @property
    def ids(self) -> Ids:
        """The ids by position: (N,), a view."""
        return self._ids[: self._count]

    @property
    def vectors(self) -> Vectors:
        """The vectors by position: (N, D), a view, contiguous."""
        return self._vectors[: self._count]

    def positions(self, ids: Ids) -> Ids:
        """Give the position of each id, -1 where it is not there: int64 (len(ids),)."""
        if not self._count:
            return np.full(len(ids), -1, np.int64)
        if self._find is None:
            self._find = _finder(self.ids)
        return self._find(ids)

    def put(self, ids: Ids, vectors: Vectors) -> None:
        """Write the vectors of these unique ids: over the old where the id is there, else at the end."""
        position = self.positions(ids)
        old = position >= 0
        if old.any():
            self._vectors[position[old]] = vectors[old]
            ids, vectors = ids[~old], vectors[~old]
        if not len(ids):
            return
        start, stop = self._count, self._count + len(ids)
        self._reserve(stop)
        self._ids[start:stop] = ids
        self._vectors[start:stop] = vectors
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
        self._ids[holes] = self._ids[movers]
        self._vectors[holes] = self._vectors[movers]
        self._count = left
        self._find = None
        return len(gone)

    def _reserve(self, rows: int) -> None:
        """Make room for so many rows; by more than asked, so that many small adds cost little."""
        if rows <= len(self._ids):
            return
        room = max(rows, int(len(self._ids) * _GROWTH))
        ids = np.empty(room, np.int64)
        vectors = np.empty((room, self._vectors.shape[1]), np.float32)
        ids[: self._count] = self.ids
        vectors[: self._count] = self.vectors
        self._ids, self._vectors = ids, vectors


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
