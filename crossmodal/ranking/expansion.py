"""Queries moved towards what they found first."""

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

QUERIES_AT_ONCE = 256


def expand_queries(
    queries: Vectors, gallery: Vectors, *, neighbours: int = 10, alpha: float = 3.0
) -> Vectors:
    """Add to each query its nearest items, each times its score to the power of ``alpha``: (Q, D).

    Alpha query expansion (Radenovic et al., "Fine-tuning CNN Image Retrieval with No Human Annotation", TPAMI
    2019). Items with negative scores add nothing; the result is L2-normalised.
    """
    count = min(neighbours, len(gallery))
    expanded = np.empty_like(queries)
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        some = queries[start : start + QUERIES_AT_ONCE]
        scores = some @ gallery.T
        nearest = np.argpartition(-scores, count - 1, axis=1)[:, :count]
        weights = np.maximum(np.take_along_axis(scores, nearest, axis=1), 0) ** alpha
        moved = some + np.einsum("qk,qkd->qd", weights, gallery[nearest])
        expanded[start : start + len(some)] = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    return expanded
