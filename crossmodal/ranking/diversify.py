"""Hits spread out: without near copies of one another, or chosen for what each adds."""

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]


def without_near_duplicates(hits: Vectors, *, threshold: float = 0.95) -> Rows:
    """Give the rows of hits that are no near copy of a better one.

    ``hits``: (K, D), L2-normalised, the best first. A hit goes when its cosine with one that stays before it
    is ``threshold`` or more.
    """
    kept: list[int] = []
    for row, hit in enumerate(hits):
        if not kept or float((hits[kept] @ hit).max()) < threshold:
            kept.append(row)
    return np.array(kept, np.int64)


def spread(scores: NDArray[np.floating], hits: Vectors, k: int, *, relevance: float = 0.7) -> Rows:
    """Choose k hits one by one, each for its score and for being unlike those chosen before it.

    ``scores``: (K,) and ``hits``: (K, D), L2-normalised. Maximal marginal relevance (Carbonell and Goldstein,
    SIGIR 1998): the next one has the highest ``relevance`` x score - (1 - ``relevance``) x its highest cosine
    with a chosen one. Of equals the first comes first.
    """
    chosen: list[int] = []
    left = np.ones(len(hits), bool)
    likeness = np.full(len(hits), -np.inf)
    for _ in range(min(k, len(hits))):
        repeated = np.where(np.isfinite(likeness), likeness, 0)
        worth = np.where(left, relevance * scores - (1 - relevance) * repeated, -np.inf)
        chosen.append(int(worth.argmax()))
        left[chosen[-1]] = False
        likeness = np.maximum(likeness, hits @ hits[chosen[-1]])
    return np.array(chosen, np.int64)
