"""FAISS's flat search over a NumPy array: what ``IndexFlatIP.search`` does, on rows that it need not own.

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

Mask = NDArray[np.bool_]

# Below so many rows a slice is over before a thread is awake.
_MIN_ROWS_PER_SLICE = 8192


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


def nearest(queries: Vectors, vectors: Vectors, k: int, mask: Mask | None = None) -> tuple[Scores, Ids]:
    """Find for each query the ``k`` rows that score highest as FAISS computes it, in no promised order.

    ``queries``: (Q, D). ``vectors``: (N, D), contiguous. ``mask``: (N,), the rows that may be found; at least
    ``k`` of them. Gives scores (Q, k) and positions (Q, k).
    """
    if len(queries) >= _cores():
        return _nearest_in(slice(0, len(vectors)), queries, vectors, k, mask)
    runs = _slices(len(queries), len(vectors))
    tasks = [_threads().submit(_nearest_in, rows, queries, vectors, k, mask) for rows in runs]
    parts = [task.result() for task in tasks]
    if len(parts) == 1:
        return parts[0]
    scores = np.concatenate([part[0] for part in parts], axis=1)
    positions = np.concatenate([part[1] for part in parts], axis=1)
    top = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    return np.take_along_axis(scores, top, axis=1), np.take_along_axis(positions, top, axis=1)


def _nearest_in(
    rows: slice, queries: Vectors, vectors: Vectors, k: int, mask: Mask | None
) -> tuple[Scores, Ids]:
    """Search one run of rows; where it holds too few, FAISS fills up with the lowest of floats."""
    faiss = load_faiss()
    part = vectors[rows]
    scores = np.empty((len(queries), k), np.float32)
    positions = np.empty((len(queries), k), np.int64)
    selector, bits = None, None
    if mask is not None:
        bits = np.packbits(mask[rows], bitorder="little")
        selector = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
    faiss.knn_inner_product(
        faiss.swig_ptr(queries),
        faiss.swig_ptr(part),
        vectors.shape[1],
        len(queries),
        len(part),
        k,
        faiss.swig_ptr(scores),
        faiss.swig_ptr(positions),
        selector,
    )
    return scores, positions + rows.start


def _slices(queries: int, rows: int) -> Sequence[slice]:
    """Cut the rows into runs, so that queries times runs keep the cores busy."""
    runs = max(1, min(_cores() // queries, rows // _MIN_ROWS_PER_SLICE))
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
