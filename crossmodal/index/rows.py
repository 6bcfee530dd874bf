"""Rows in memory, or mapped from a file: ids and vectors side by side, changed in place."""

import numpy as np

from crossmodal.index.base import Ids, Vectors

_GROWTH = 1.5


class Rows:
    """Ids (N,) and vectors (N, D) in no particular order; the place of a row is its *position*.

    Replacing and removing touch only the rows named: a hole is filled with a row from the end. Not safe to
    change while another thread reads; its owner sees to that.
    """

    def __init__(self, ids: Ids, vectors: Vectors) -> None:
        self._ids = ids
        self._vectors = vectors
        self._count = len(ids)
        self._sorted: tuple[Ids, Ids] | None = None

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
        ordered, position = self._by_id()
        place = np.minimum(np.searchsorted(ordered, ids), self._count - 1)
        return np.where(ordered[place] == ids, position[place], -1)

    def put(self, ids: Ids, vectors: Vectors) -> None:
        """Write the vectors of these unique ids: over the old where the id is there, else at the end."""
        position = self.positions(ids)
        new = position < 0
        self._vectors[position[~new]] = vectors[~new]
        start, added = self._count, int(new.sum())
        if not added:
            return
        self._reserve(start + added)
        self._ids[start : start + added] = ids[new]
        self._vectors[start : start + added] = vectors[new]
        self._count = start + added
        self._sorted = None

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
        self._sorted = None
        return len(gone)

    def _by_id(self) -> tuple[Ids, Ids]:
        """Give the ids ascending and the position of each; kept until rows come or go."""
        if self._sorted is None:
            order = np.argsort(self.ids)
            self._sorted = self.ids[order], order
        return self._sorted

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
