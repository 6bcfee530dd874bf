"""Brute force in NumPy: what every other index is measured against."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from crossmodal.index.base import Ids, Index, Scores, Vectors, best, exact_scores


class ExactIndex(Index):
    """Scores every allowed row for every query; slow and plainly right.

    Rows stand in the order of their ids. Each change makes new arrays, so a search that runs beside it sees
    the rows as they were.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self._rows = np.empty(0, np.int64), np.empty((0, dim), np.float32)

    def __len__(self) -> int:
        return len(self._rows[0])

    def ids(self) -> Ids:
        """Give the ids of all rows, ascending: int64 (N,)."""
        return self._rows[0].copy()

    def describe(self) -> dict[str, Any]:
        """Say what this index is, for JSON."""
        return {"kind": "exact", "rows": len(self), "dim": self.dim, "device": "cpu"}

    def _put(self, ids: Ids, vectors: Vectors) -> None:
        old_ids, old_vectors = self._rows
        kept = ~np.isin(old_ids, ids)
        all_ids = np.concatenate([old_ids[kept], ids])
        order = np.argsort(all_ids)
        self._rows = all_ids[order], np.concatenate([old_vectors[kept], vectors])[order]

    def _drop(self, ids: Ids) -> int:
        old_ids, old_vectors = self._rows
        kept = ~np.isin(old_ids, ids)
        self._rows = old_ids[kept], old_vectors[kept]
        return int(len(kept) - kept.sum())

    def _nearest(self, queries: Vectors, k: int, allowed: Ids | None) -> Iterator[tuple[Scores, Ids]]:
        ids, vectors = self._rows
        if allowed is not None:
            chosen = np.isin(ids, allowed)
            ids, vectors = ids[chosen], vectors[chosen]
        for query in queries:
            yield best(exact_scores(query, vectors), ids, k)
