"""FAISS's flat searches over NumPy arrays: what ``IndexFlatIP.search`` does, on rows that it need not own.

``IndexFlatIP`` copies every row into itself. Calling its search routine on our array instead keeps rows
mapped from their file, lets them be changed in place, and lets one query use all cores: FAISS shares out
queries among threads, never the rows of one query. 100,000 rows of 384 on two cores, the fastest of hundreds
of runs on a busy machine: 5.4 ms in one piece, 3.4 in two.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossmodal.errors import MissingPackageError
from crossmodal.index.base import Ids, Scores, Vectors
from crossmodal.index.forms import Stored, signs

Mask = NDArray[np.bool_]
Bits = NDArray[np.uint8]

# Below so many rows a slice is over before a thread is awake.
_MIN_ROWS_PER_SLICE = 8192
_MIN_BITS_PER_SLICE = 16 * _MIN_ROWS_PER_SLICE

# Rows decoded at a time: what the second cache holds. 100,000 rows of 384 from int8, one core of a busy
# machine: 0.75 MB 18 ms, 3 MB 8.1 ms, against 8.4 ms for float32, which needs no decoding but more memory.
_BLOCK_BYTES = 3 * 2**20
_MIN_ROWS_PER_BLOCK = 64

# More are scored as one matrix product, which gains more than decoding costs.
_FEW_QUERIES = 8


def load_faiss() -> Any:
    """Give the module ``faiss``.

    :raises MissingPackageError: when neither build of it is installed; it names both commands.
    """
    try:
        import faiss
    except ImportError as error:
        raise MissingPackageError(
            "FAISS is not installed. Run: pip install 'crossmodal-retrieval[cpu]'"
            " (or, with an NVIDIA GPU: pip install 'crossmodal-retrieval[gpu]')."
        ) from error
    return faiss


def nearest(
    queries: Vectors, vectors: Vectors | Stored, k: int, mask: Mask | None = None
) -> tuple[Scores, Ids]:
    """Find for each query the ``k`` rows that score highest as FAISS computes it, in no promised order.

    ``queries``: (Q, D). ``vectors``: (N, D), contiguous, or stored in another form, which is decoded a block
    at a time. ``mask``: (N,), the rows that may be found; at least ``k`` of them. Gives scores (Q, k) and
    positions (Q, k).
    """
    if isinstance(vectors, Stored):
        # Decoding is worth sharing, however many the queries.
        runs = _slices(1, len(vectors), _MIN_ROWS_PER_SLICE)
        tasks = [_threads().submit(_nearest_decoded, rows, queries, vectors, k, mask) for rows in runs]
    else:
        if len(queries) >= _cores():
            return _nearest_in(slice(0, len(vectors)), queries, vectors, k, mask)
        runs = _slices(len(queries), len(vectors), _MIN_ROWS_PER_SLICE)
        tasks = [_threads().submit(_nearest_in, rows, queries, vectors, k, mask) for rows in runs]
    parts = [task.result() for task in tasks]
    return _highest([part[0] for part in parts], [part[1] for part in parts], k)


def nearest_bits(queries: Vectors, vectors: Stored, k: int, mask: Mask | None = None) -> Ids:
    """Find for each query ``k`` rows of a binary form whose bits differ from its signs in the fewest places.

    As ``nearest``; gives positions (Q, k). Which of equals are found does not depend on the other queries.
    """
    chosen = None if mask is None else np.flatnonzero(mask)
    bits = vectors.bits if chosen is None else vectors.bits[chosen]
    asked = signs(queries)
    runs = _slices(1, len(bits), _MIN_BITS_PER_SLICE)
    tasks = [_threads().submit(_nearest_bits_in, rows, asked, bits, k) for rows in runs]
    parts = [task.result() for task in tasks]
    distances = np.concatenate([part[0] for part in parts], axis=1)
    positions = np.concatenate([part[1] for part in parts], axis=1)
    nearest_first = np.argsort(distances, axis=1, kind="stable")[:, :k]
    positions = np.take_along_axis(positions, nearest_first, axis=1)
    return positions if chosen is None else chosen[positions]


def _nearest_in(
    rows: slice, queries: Vectors, vectors: Vectors, k: int, mask: Mask | None
) -> tuple[Scores, Ids]:
    """Search one run of rows; where it holds too few, FAISS fills up with the lowest of floats."""
    faiss = load_faiss()
    selector, bits = None, None
    if mask is not None:
        bits = np.packbits(mask[rows], bitorder="little")
        selector = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
    scores, positions = _flat(queries, vectors[rows], k, selector)
    return scores, positions + rows.start


def _nearest_decoded(
    rows: slice, queries: Vectors, vectors: Stored, k: int, mask: Mask | None
) -> tuple[Scores, Ids]:
    """Search one run of stored rows, decoding so many at a time as stay near the processor."""
    dim = vectors.shape[1]
    step = max(_MIN_ROWS_PER_BLOCK, _BLOCK_BYTES // (4 * dim))
    buffer = np.empty((step, dim), np.float32)
    scores, positions = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    for start in range(rows.start, rows.stop, step):
        block = slice(start, min(start + step, rows.stop))
        chosen = np.arange(block.start, block.stop) if mask is None else np.flatnonzero(mask[block]) + start
        if not len(chosen):
            continue
        at = block if mask is None else chosen
        if len(queries) > _FEW_QUERIES:
            found, places = _flat(queries, part := vectors.read(at, buffer), min(k, len(part)))
        else:
            lowest = scores.min(axis=1) if scores.shape[1] == k else np.full(len(queries), -np.inf)
            found, places = _above(queries, *vectors.read_apart(at, buffer), lowest)
        scores, positions = _highest([scores, found], [positions, chosen[places]], k)
    return scores, positions


def _above(queries: Vectors, numbers: Vectors, factors: Vectors | None, lowest: Scores) -> tuple[Scores, Ids]:
    """Score rows and give those that are above ``lowest`` (Q,) for any query: scores and places (Q, n).

    A factor is applied to a score, not to each number: decoding costs half as much so.
    """
    faiss = load_faiss()
    scores = np.empty((len(queries), len(numbers)), np.float32)
    for row, query in zip(scores, queries, strict=True):
        faiss.fvec_inner_products_ny(
            faiss.swig_ptr(row), faiss.swig_ptr(query), faiss.swig_ptr(numbers), *numbers.shape[::-1]
        )
    if factors is not None:
        scores *= factors[:, 0]
    places = np.flatnonzero((scores > lowest[:, None]).any(axis=0))
    return scores[:, places], np.broadcast_to(places, (len(queries), len(places)))


def _nearest_bits_in(rows: slice, asked: Bits, bits: Bits, k: int) -> tuple[Any, Any]:
    """Search one run of bits: distances and positions, int32 and int64 (Q, k or as many as there are)."""
    part = bits[rows]
    distances, positions = load_faiss().knn_hamming(asked, part, min(k, len(part)))
    return distances, positions + rows.start


def _flat(queries: Vectors, part: Vectors, k: int, selector: Any = None) -> tuple[Scores, Ids]:
    """Let FAISS find the ``k`` highest of a contiguous part."""
    faiss = load_faiss()
    scores = np.empty((len(queries), k), np.float32)
    positions = np.empty((len(queries), k), np.int64)
    faiss.knn_inner_product(
        faiss.swig_ptr(queries),
        faiss.swig_ptr(part),
        part.shape[1],
        len(queries),
        len(part),
        k,
        faiss.swig_ptr(scores),
        faiss.swig_ptr(positions),
        selector,
    )
    return scores, positions


def _highest(scores: Sequence[Scores], positions: Sequence[Ids], k: int) -> tuple[Scores, Ids]:
    """Give the ``k`` highest of several answers to the same queries, or as many as there are."""
    if len(scores) == 1:
        return scores[0], positions[0]
    all_scores, all_positions = np.concatenate(scores, axis=1), np.concatenate(positions, axis=1)
    if all_scores.shape[1] <= k:
        return all_scores, all_positions
    top = np.argpartition(-all_scores, k - 1, axis=1)[:, :k]
    return np.take_along_axis(all_scores, top, axis=1), np.take_along_axis(all_positions, top, axis=1)


def _slices(queries: int, rows: int, least: int) -> Sequence[slice]:
    """Cut the rows into runs of ``least`` or more, so that queries times runs keep the cores busy."""
    runs = max(1, min(_cores() // queries, rows // least))
    edges = np.linspace(0, rows, runs + 1).astype(int).tolist()
    return [slice(start, stop) for start, stop in pairwise(edges)]


@cache
def _cores() -> int:
    """Give the number of threads FAISS would use, which OMP_NUM_THREADS governs."""
    return int(load_faiss().omp_get_max_threads())


@cache
def _threads() -> ThreadPoolExecutor:
    """Give the threads that search slices; all indexes of this process share them.

    Each may use one OpenMP thread, its own. With a team for each slice, 10,000 rows took 0.5 ms and not 0.3
    on an idle machine, and 20 ms on a busy one, where a team waits for its slowest member.
    """
    alone = partial(load_faiss().omp_set_num_threads, 1)
    return ThreadPoolExecutor(_cores(), thread_name_prefix="index-scan", initializer=alone)


# A forked child inherits the pool but none of its threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.cache_clear)
