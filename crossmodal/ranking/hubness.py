"""Corrections for hubs: pictures or captions that are near to every query, whatever it asks.

Each measures how near an item of the gallery is to a bank of queries, and lowers its scores by that. A
corrected score is still an inner product, of vectors that are one dimension longer: every function gives such
queries (Q, D + 1) and such a gallery (G, D + 1), which index and measure as others do. Scores have the order
that the papers give them within each query; what is the same for all answers to a query is left out.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Pair = tuple[Vectors, Vectors]
Reduce = Callable[[Vectors], Vectors]

SCORES_AT_ONCE = 2**23


def nnn(
    queries: Vectors, gallery: Vectors, bank: Vectors, *, neighbours: int = 128, weight: float = 0.75
) -> Pair:
    """Lower an item by ``weight`` times its mean score with its nearest queries of the bank.

    Nearest neighbour normalisation (Chowdhury et al., "Nearest Neighbor Normalization Improves Multimodal
    Retrieval", EMNLP 2024).
    """
    return _lowered(queries, gallery, weight * mean_of_nearest(gallery, bank, neighbours))


def csls(queries: Vectors, gallery: Vectors, bank: Vectors, *, neighbours: int = 10) -> Pair:
    """Lower an item by half its mean score with its nearest queries of the bank.

    Cross-domain similarity local scaling (Conneau et al., "Word Translation Without Parallel Data", ICLR
    2018), halved, and without the term of the query.
    """
    return _lowered(queries, gallery, mean_of_nearest(gallery, bank, neighbours) / 2)


def inverted_softmax(queries: Vectors, gallery: Vectors, bank: Vectors, *, sharpness: float = 20.0) -> Pair:
    """Divide an item's exponential score by the sum of those with the whole bank.

    Smith et al., "Offline bilingual word vectors, orthogonal transformations and the inverted softmax", ICLR
    2017; here its logarithm over ``sharpness``.
    """
    return _lowered(queries, gallery, soft_maximum(gallery, bank, sharpness))


def qb_norm(queries: Vectors, gallery: Vectors, bank: Vectors, *, sharpness: float = 20.0) -> Pair:
    """Apply the inverted softmax to those queries only whose first hit is first for some query of the bank.

    Bogolin et al., "Cross Modal Retrieval with Querybank Normalisation", CVPR 2022: the dynamic inverted
    softmax, with an activation set of first hits.
    """
    hubs = np.unique(best(bank, gallery))
    drawn_in = np.isin(best(queries, gallery), hubs)
    return _lowered(queries, gallery, soft_maximum(gallery, bank, sharpness), drawn_in)


def dual_softmax(queries: Vectors, gallery: Vectors, bank: Vectors, *, sharpness: float = 20.0) -> Pair:
    """Multiply the softmax over the gallery with the softmax over the queries, which are the bank.

    As mutual matching uses it (Sun et al., "LoFTR", CVPR 2021). CAMoE (Cheng et al., 2021) multiplies the
    score itself with the latter; at usual sharpness the order is nearly the same.
    """
    return _lowered(queries, gallery, soft_maximum(gallery, bank, sharpness) / 2)


def mean_of_nearest(gallery: Vectors, bank: Vectors, neighbours: int) -> Vectors:
    """Give for each item its mean score with the nearest of the bank, or with all of a smaller bank: (G,)."""
    count = min(neighbours, len(bank))

    def reduce(scores: Vectors) -> Vectors:
        nearest = np.partition(scores, len(bank) - count, axis=1)[:, len(bank) - count :]
        return np.asarray(nearest.mean(axis=1, dtype=np.float64), np.float32)

    return _reduced(gallery, bank, reduce)


def soft_maximum(gallery: Vectors, bank: Vectors, sharpness: float) -> Vectors:
    """Give for each item the log of its summed exponential scores with the bank, over sharpness: (G,)."""

    def reduce(scores: Vectors) -> Vectors:
        highest = scores.max(axis=1, keepdims=True)
        total = np.exp(sharpness * (scores - highest)).sum(axis=1, dtype=np.float64)
        return np.asarray(highest[:, 0] + np.log(total) / sharpness, np.float32)

    return _reduced(gallery, bank, reduce)


def best(queries: Vectors, gallery: Vectors) -> NDArray[np.intp]:
    """Give the row of the gallery that scores highest with each query: (Q,)."""
    return np.concatenate([scores.argmax(axis=1) for scores in _scores(queries, gallery)])


def _reduced(gallery: Vectors, bank: Vectors, reduce: Reduce) -> Vectors:
    return np.concatenate([reduce(scores) for scores in _scores(gallery, bank)])


def _scores(rows: Vectors, columns: Vectors) -> Iterator[Vectors]:
    """Yield blocks of scores, all columns of some rows."""
    height = max(1, SCORES_AT_ONCE // len(columns))
    for start in range(0, len(rows), height):
        yield rows[start : start + height] @ columns.T


def _lowered(
    queries: Vectors, gallery: Vectors, by: NDArray[np.floating[Any]], which: NDArray[np.bool_] | None = None
) -> Pair:
    """Lower the scores of each item, with all queries or with some."""
    switch = np.ones(len(queries)) if which is None else which
    return (
        np.column_stack([queries, switch]).astype(np.float32),
        np.column_stack([gallery, -by]).astype(np.float32),
    )
