"""The search engine of one machine: FAISS proposes, exact scores decide."""

import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from crossmodal.errors import IndexingError
from crossmodal.index.base import NORM_TOLERANCE, Ids, Index, Scores, Vectors, best, exact_scores
from crossmodal.index.forms import Storage, Stored, form_of
from crossmodal.index.gpu import MAX_CANDIDATES, ROWS_WORTH_A_COPY, GpuCopy, Gpus, choose_gpus, meant_by_auto
from crossmodal.index.lock import ReadWriteLock
from crossmodal.index.rows import Rows
from crossmodal.index.saved import read_rows, write_rows
from crossmodal.index.scan import Mask, load_faiss, nearest, nearest_bits

_log = logging.getLogger(__name__)

# Up to this share of rows, copying those allowed beats scanning all with a selector. Two cores, 384 wide,
# scan against copy: 500,000 rows, 1% allowed 1.1 and 0.4 ms, 2% 2.6 and 2.4, 5% 5.7 and 8.4.
_COPY_UP_TO = 0.02

# Of binary vectors, so many times the rows asked for are scored again, and so many at least. Of the ten
# nearest among 2,386 drawings of `lite`, asked by captions, 40 scored again keep 91%, 100 97%, 200 99%.
_OVERSAMPLED = 10
_LEAST_OVERSAMPLED = 200

_ROWS_AT_A_TIME = 4096

# Rounding to float16 may make a vector longer, by 2**-11 of itself and a little more.
_LARGEST_PRODUCT = (1 + NORM_TOLERANCE) ** 2 * (1 + 2.0**-10)


class FaissIndex(Index):
    """FAISS's flat inner-product search over rows in memory or mapped from a file.

    ``storage`` says in which form the vectors are kept. A score is the inner product of the query with the
    vector as it was kept. Ids and scores equal ``ExactIndex`` over those vectors to the last bit, except for
    ``binary``: there the rows whose bits are nearest to the query's signs are scored, ``_OVERSAMPLED`` times
    ``k`` of them or more, and one of the best may be missed; a score is still exact.

    How the others are made exact: FAISS sums in an order of its own and leaves ties
    open, so it is asked for more than ``k`` rows, these are scored again by ``exact_scores``, and when the
    k-th best is not clear of everything left out by more than the error of FAISS's sums, the rows around that
    border are looked up in one more pass.

    ``gpus``: "none", device numbers, or "auto": all that FAISS sees, unless the environment variable
    ``CROSSMODAL_GPUS`` says otherwise (``auto``, ``none``, or numbers: ``0`` or ``0,1``). From
    ``ROWS_WORTH_A_COPY`` rows on, a copy there, in half precision, proposes the candidates; searches with
    ``allowed`` run on the CPU, as FAISS's flat GPU index takes no selector; so do all of ``binary``.

    Searches may run in many threads; ``add`` and ``remove`` wait for those under way and hold up new ones, so
    a search sees a change whole or not at all.
    """

    def __init__(self, dim: int, gpus: Gpus = "auto", storage: Storage = "float32") -> None:
        super().__init__(dim)
        load_faiss()
        if gpus == "auto":
            gpus = meant_by_auto()
        devices = choose_gpus(gpus) if storage != "binary" else []
        self._gpu = GpuCopy(devices) if devices else None
        self._gpu_may_fail = gpus == "auto"
        self._rows = Rows.none(form_of(storage), dim)
        self._version = 0
        self._lock = ReadWriteLock()

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def storage(self) -> Storage:
        """The form in which the vectors are kept."""
        return self._rows.form.storage

    def ids(self) -> Ids:
        """Give the ids of all rows, ascending: int64 (N,)."""
        with self._lock.reading():
            return np.sort(self._rows.ids)

    def describe(self) -> dict[str, Any]:
        """Say what this index is, for JSON; ``filtered_device`` is where searches with ``allowed`` run.

        ``bytes_per_vector`` counts what each search reads of each vector, and so what stays in memory.
        """
        gpu = self._gpu if len(self) >= ROWS_WORTH_A_COPY else None
        device = "cpu" if gpu is None else "gpu " + ", ".join(str(n) for n in gpu.devices) + " (float16)"
        return {
            "kind": "faiss",
            "rows": len(self),
            "dim": self.dim,
            "device": device,
            "filtered_device": "cpu",
            "storage": self.storage,
            "bytes_per_vector": sum(
                part.bytes_per_vector for part in self._rows.form.parts(self.dim) if not part.read_by_row
            ),
        }

    def save(self, path: str | os.PathLike[str], stamp: Mapping[str, str]) -> None:
        """Write all rows and ``stamp`` to one file, whole or not at all; searches go on meanwhile.

        :raises StorageError: when the disk refuses.
        """
        with self._lock.reading():
            write_rows(path, self._rows, stamp)

    @classmethod
    def load(cls, path: str | os.PathLike[str], gpus: Gpus = "auto") -> tuple["FaissIndex", dict[str, str]]:
        """Map a saved index, without copying its rows, and give it with its stamp.

        :raises IndexingError: when there is no file, or it is not ours, torn or damaged.
        :raises StorageError: when the disk refuses.
        """
        rows, stamp = read_rows(Path(path))
        index = cls(rows.dim, gpus, rows.form.storage)
        index._rows = rows
        return index, stamp

    def _put(self, ids: Ids, vectors: Vectors) -> None:
        with self._lock.writing():
            self._rows.put(ids, vectors)
            self._version += 1

    def _drop(self, ids: Ids) -> int:
        with self._lock.writing():
            removed = self._rows.drop(ids)
            self._version += bool(removed)
            return removed

    def _nearest(self, queries: Vectors, k: int, allowed: Ids | None) -> list[tuple[Scores, Ids]]:
        with self._lock.reading():
            rows = self._rows
            if not len(queries) or not len(rows):
                return [_none()] * len(queries)
            if allowed is None:
                return self._among_all(queries, k)
            positions = rows.positions(allowed)
            mask = np.zeros(len(rows), np.bool_)
            mask[positions[positions >= 0]] = True
            count = np.count_nonzero(mask)
            if count > _COPY_UP_TO * len(rows):
                return _search(queries, rows.vectors, rows.ids, k, mask)
            chosen = np.flatnonzero(mask)
            return _search(queries, rows.vectors[chosen], rows.ids[chosen], k)

    def _among_all(self, queries: Vectors, k: int) -> list[tuple[Scores, Ids]]:
        """Search all rows, on the GPUs where there are some and the rows are worth it."""
        ids, vectors = self._rows.ids, self._rows.vectors
        count = min(max(4 * k, k + 64), len(ids))
        gpu = self._gpu
        if gpu is None or len(ids) < ROWS_WORTH_A_COPY or count > MAX_CANDIDATES:
            return _search(queries, vectors, ids, k)
        try:
            scores, positions = gpu.nearest(queries, vectors, self._version, count)
        except RuntimeError as error:
            if not self._gpu_may_fail:
                raise IndexingError(
                    f"The index of {len(ids)} rows cannot be searched on GPUs {gpu.devices}: {error};"
                    " give other GPUs, or 'none'."
                ) from error
            _log.warning("The index goes on without GPUs %s: %s", gpu.devices, error)
            self._gpu = None
            return _search(queries, vectors, ids, k)
        error_bound = half_precision_error(self.dim)
        return [
            _settle(query, vectors, ids, k, scores[q], positions[q], error_bound)
            for q, query in enumerate(queries)
        ]


def _search(
    queries: Vectors, vectors: Vectors | Stored, ids: Ids, k: int, mask: Mask | None = None
) -> list[tuple[Scores, Ids]]:
    """Give each query's ``k`` best among ``vectors`` (N, D) whose ids are ``ids`` (N,), on the CPU."""
    positions = np.arange(len(ids)) if mask is None else np.flatnonzero(mask)
    if isinstance(vectors, Stored) and vectors.form.storage == "binary":
        count = max(_OVERSAMPLED * k, _LEAST_OVERSAMPLED)
        if count < len(positions):
            found = nearest_bits(queries, vectors, count, mask)
            return [
                best(exact_scores(q, vectors, at), ids[at], k) for q, at in zip(queries, found, strict=True)
            ]
    # A share of k to spare keeps the border clear where scores lie close; see _settle.
    count = k + k // 2 + 32
    if count >= len(positions):
        return [best(exact_scores(q, vectors, positions), ids[positions], k) for q in queries]
    scores, found = nearest(queries, vectors, count, mask)
    error = rounding_error(vectors.shape[1])
    return [
        _settle(query, vectors, ids, k, scores[q], found[q], error, mask) for q, query in enumerate(queries)
    ]


def _settle(
    query: Vectors,
    vectors: Vectors | Stored,
    ids: Ids,
    k: int,
    scores: Scores,
    positions: Ids,
    error: float,
    mask: Mask | None = None,
) -> tuple[Scores, Ids]:
    """Make a query's candidates the true ``k`` best.

    ``scores`` are within ``error`` of the exact ones, and no row left out has a higher one than the lowest
    here. So a row left out scores at most that plus ``error``, exactly; if the k-th best is above, all is
    settled. If not, every row that could reach the k-th best is scored.
    """
    top_scores, top_ids = best(exact_scores(query, vectors, positions), ids[positions], k)
    if len(positions) == len(ids) or top_scores[-1] > scores.min() + error:
        return top_scores, top_ids
    near = _products(query, vectors) >= top_scores[-1] - rounding_error(len(query))
    reachable = np.flatnonzero(near if mask is None else near & mask)
    return best(exact_scores(query, vectors, reachable), ids[reachable], k)


def _products(query: Vectors, vectors: Vectors | Stored) -> Scores:
    """Give the inner products of ``query`` (D,) with all ``vectors`` (N, D), in single precision: (N,)."""
    if not isinstance(vectors, Stored):
        products: Scores = vectors @ query
        return products
    starts = range(0, len(vectors), _ROWS_AT_A_TIME)
    return np.concatenate([vectors[start : start + _ROWS_AT_A_TIME] @ query for start in starts])


def rounding_error(dim: int) -> float:
    """Give how far a float32 inner product of normalised vectors can be from the exact one, rounded.

    In any order of summation: n u / (1 - n u) times the sum of absolute products, which is the product of
    lengths at most (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1).
    """
    steps = (dim + 4) * 2.0**-24
    return _LARGEST_PRODUCT * steps / (1 - steps)


def half_precision_error(dim: int) -> float:
    """Give the same when both vectors are first rounded to float16 and then summed in float32.

    Rounding moves a number by 2**-11 of itself, or by 2**-25 where it is too small for float16's full
    precision; over a row of length 1 the latter adds up to 2**-25 times the root of ``dim`` at most.
    """
    rounded = 2.0**-11 + 2.0**-25 * math.sqrt(dim)
    return _LARGEST_PRODUCT * (2 * rounded + rounded**2) + rounding_error(dim)


def _none() -> tuple[Scores, Ids]:
    """Give the answer of an index without rows."""
    return np.empty(0, np.float32), np.empty(0, np.int64)
