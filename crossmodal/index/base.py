"""What every search index is, and the one way it scores and orders.

A backend sees L2-normalised vectors and int64 row ids, never records. It may find its candidates as it likes;
what it returns is scored by ``exact_scores`` and ordered by ``best``, so that all backends agree to the last
bit and equal rows always tie.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crossmodal.errors import IndexingError, first_few
from crossmodal.index.forms import Stored
from crossmodal.index.forms import Vectors as Vectors

Ids = NDArray[np.int64]
Scores = NDArray[np.float32]

# Half-precision embeddings are off by 1e-3 at most; an encoder that forgot to normalise is off by far more.
NORM_TOLERANCE = 0.01

_ROWS_PER_BLOCK = 4096


class Index(ABC):
    """Finds the rows whose inner product with a query is highest.

    Scores are inner products: float32, higher is better. Among equal scores the smaller id comes first.
    This class checks and converts what comes in; a subclass keeps the rows and searches them.
    """

    def __init__(self, dim: int) -> None:
        if dim < 1:
            raise IndexingError(f"An index of {dim} dimensions is asked for; give 1 or more.")
        self.dim = dim

    @abstractmethod
    def __len__(self) -> int:
        """Give the number of rows."""

    @abstractmethod
    def ids(self) -> Ids:
        """Give the ids of all rows, ascending: int64 (N,)."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Say what this index is, for JSON: ``kind``, ``rows``, ``dim`` and ``device``, where it lives."""

    def add(self, ids: ArrayLike, vectors: ArrayLike) -> None:
        """Add rows; an id that is already there gets its new vector.

        ``ids``: integers (N,), unique, not negative. ``vectors``: (N, D), L2-normalised. All go in or none.

        :raises IndexingError: when shapes, ids or vectors are not so; it names the ids.
        """
        checked = as_ids(ids)
        rows = as_vectors(vectors, self.dim, "vector")
        if len(checked) != len(rows):
            raise IndexingError(
                f"{len(checked)} ids came with {len(rows)} vectors; give one id for each vector."
            )
        refuse_unless_normalised(rows, "vector", checked)
        _refuse_repeated(checked)
        if len(checked):
            self._put(checked, rows)

    def remove(self, ids: ArrayLike) -> int:
        """Remove the rows of these ids and give how many there were; ids that are not there do no harm."""
        checked = as_ids(ids)
        return self._drop(checked) if len(checked) else 0

    def search(self, queries: ArrayLike, k: int, allowed: ArrayLike | None = None) -> tuple[Scores, Ids]:
        """Find the ``k`` best rows for each query: scores float32 (Q, k) and ids int64 (Q, k).

        ``queries``: (Q, D), L2-normalised. ``allowed``: the only ids that may be found; ids that are absent
        are ignored. The choice is made before the search, so there are always ``min(k, rows allowed)`` hits.
        Where there are fewer than ``k``, the rest is -inf with id -1.

        :raises IndexingError: when ``k`` is below 1, or queries or ids are not as said.
        """
        if k < 1:
            raise IndexingError(f"The number of hits asked for is {k}; ask for 1 or more.")
        checked = as_vectors(queries, self.dim, "query")
        refuse_unless_normalised(checked, "query")
        chosen = None if allowed is None else as_ids(allowed)
        scores = np.full((len(checked), k), -np.inf, np.float32)
        ids = np.full((len(checked), k), -1, np.int64)
        for row, (found_scores, found_ids) in enumerate(self._nearest(checked, k, chosen)):
            scores[row, : len(found_ids)] = found_scores
            ids[row, : len(found_ids)] = found_ids
        return scores, ids

    @abstractmethod
    def _put(self, ids: Ids, vectors: Vectors) -> None:
        """Add or replace checked rows; at least one."""

    @abstractmethod
    def _drop(self, ids: Ids) -> int:
        """Remove the rows of checked ids, which may repeat or be absent; give how many there were."""

    @abstractmethod
    def _nearest(self, queries: Vectors, k: int, allowed: Ids | None) -> Iterable[tuple[Scores, Ids]]:
        """Give for each checked query its best hits, ``k`` of them or as many as there are, in order."""


def exact_scores(query: Vectors, vectors: Vectors | Stored, positions: Ids | None = None) -> Scores:
    """Give the inner products of ``query`` (D,) with ``vectors`` (N, D), rounded once, to float32: (N,).

    ``positions`` picks rows of ``vectors``. Summed in float64 row by row, in one order whatever the row's
    place: equal rows get equal scores, which a matrix product does not promise.
    """
    wide = query.astype(np.float64)
    scores = np.empty(len(vectors) if positions is None else len(positions), np.float32)
    for start in range(0, len(scores), _ROWS_PER_BLOCK):
        rows = slice(start, start + _ROWS_PER_BLOCK)
        block = vectors[rows] if positions is None else vectors[positions[rows]]
        scores[rows] = (block * wide).sum(axis=1)
    return scores


def best(scores: Scores, ids: Ids, k: int) -> tuple[Scores, Ids]:
    """Give the ``k`` highest scores and their ids, highest first; among equal scores the smaller id first."""
    if k < len(scores):
        # Everything that is at least the k-th best stays in, ties and all, before the dear sort.
        border = np.partition(scores, len(scores) - k)[len(scores) - k]
        kept = np.flatnonzero(scores >= border)
        scores, ids = scores[kept], ids[kept]
    order = np.lexsort((ids, -scores))[:k]
    return scores[order], ids[order]


def as_ids(ids: ArrayLike) -> Ids:
    """Give row ids as int64 (N,).

    :raises IndexingError: when they are no integers, not one-dimensional, or negative.
    """
    array = np.asarray(ids)
    if array.ndim != 1:
        raise IndexingError(f"Row ids came with shape {array.shape}; give one dimension, (N,).")
    if not len(array):
        return np.empty(0, np.int64)
    if not np.issubdtype(array.dtype, np.integer):
        raise IndexingError(f"Row ids came as {array.dtype}; give integers.")
    if array.min() < 0 or array.max() > np.iinfo(np.int64).max:
        raise IndexingError(f"Row ids reach from {array.min()} to {array.max()}; give 0 to 2**63 - 1.")
    return np.ascontiguousarray(array, dtype=np.int64)


def as_vectors(vectors: ArrayLike, dim: int, noun: str) -> Vectors:
    """Give vectors as contiguous float32 (N, D); ``noun`` is what the message calls one of them.

    :raises IndexingError: when the shape differs or they are no floats.
    """
    array = np.asarray(vectors)
    if array.ndim != 2 or array.shape[1] != dim:
        raise IndexingError(
            f"{noun.capitalize()} array has shape {array.shape}; this index takes (N, {dim})."
        )
    if not np.issubdtype(array.dtype, np.floating):
        raise IndexingError(f"{noun.capitalize()} array came as {array.dtype}; give floats, L2-normalised.")
    return np.ascontiguousarray(array, dtype=np.float32)


def refuse_unless_normalised(vectors: Vectors, noun: str, ids: Ids | None = None) -> None:
    """Raise when rows are not finite or not L2-normalised; name them by ``ids``, or by their place.

    :raises IndexingError: so.
    """
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    broken = ~np.isfinite(norms)
    broken[broken] = ~np.isfinite(vectors[broken]).all(axis=1)
    skewed = np.abs(norms - 1) > NORM_TOLERANCE
    for bad, fault, remedy in (
        (broken, "hold NaN or infinity", "Encode their inputs again."),
        (skewed, "are not L2-normalised", "Divide each by its length."),
    ):
        if bad.any():
            places = np.flatnonzero(bad)
            rows = f"rows {first_few(places)}" if ids is None else f"rows with ids {first_few(ids[places])}"
            raise IndexingError(f"{len(places)} of {len(bad)} {noun} rows {fault}: {rows}. {remedy}")


def _refuse_repeated(ids: Ids) -> None:
    """Raise when an id comes twice; name the first ones."""
    known, counts = np.unique(ids, return_counts=True)
    repeated = known[counts > 1]
    if len(repeated):
        raise IndexingError(f"{len(repeated)} ids come more than once in one add: {first_few(repeated)}.")
