"""Re-ranking by mutual neighbours: two things belong together when each is among the other's nearest."""

import numpy as np
from numpy.typing import NDArray

from crossmodal.errors import EvaluationError

Vectors = NDArray[np.floating]
Matrix = NDArray[np.float32]

MOST_THINGS = 8_000
"""Queries and gallery together; their distances, orders and weights take about 1.3 GB then."""


def k_reciprocal(
    queries: Vectors,
    gallery: Vectors,
    *,
    neighbours: int = 20,
    expansion: int = 6,
    original: float = 0.3,
) -> Matrix:
    """Give scores (Q, G), higher is better: minus the distance after k-reciprocal encoding.

    Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017; ``neighbours``
    is their k1, ``expansion`` k2 and ``original`` lambda. Vectors are L2-normalised. It sees all queries at
    once, and so is transductive: measure it apart.

    :raises EvaluationError: when there are too many things for a matrix of all of them.
    """
    count = len(queries) + len(gallery)
    if count > MOST_THINGS:
        raise EvaluationError(
            f"k-reciprocal re-ranking of {count:,} things needs a matrix of all of them; give it the best "
            f"hits alone, {MOST_THINGS:,} things at most"
        )
    both = np.concatenate([queries, gallery]).astype(np.float32)
    distance = np.maximum(2 - 2 * both @ both.T, 0)
    distance /= distance.max(axis=1, keepdims=True)
    nearest = np.argsort(distance, axis=1, kind="stable")
    encoded = _encode(distance, nearest, neighbours)
    if expansion > 1:
        encoded = np.stack([encoded[rows].mean(axis=0) for rows in nearest[:, :expansion]])
    asked = slice(0, len(queries))
    jaccard = _jaccard(encoded[asked], encoded[len(queries) :])
    scores: Matrix = -((1 - original) * jaccard + original * distance[asked, len(queries) :])
    return scores


def _encode(distance: Matrix, nearest: NDArray[np.intp], neighbours: int) -> Matrix:
    """Give for each thing weights (N, N) over its mutual neighbours, and over theirs where most agree."""
    close = _mutual(nearest, neighbours)
    closer = _mutual(nearest, round(neighbours / 2))
    encoded = np.zeros_like(distance)
    for row, own in enumerate(close):
        grown = set(own)
        for other in own:
            theirs = closer[other]
            if len(theirs & own) > 2 / 3 * len(theirs):
                grown |= theirs
        columns = sorted(grown)
        weights = np.exp(-distance[row, columns])
        encoded[row, columns] = weights / weights.sum()
    return encoded


def _mutual(nearest: NDArray[np.intp], neighbours: int) -> list[set[int]]:
    """Give the neighbours of each thing, itself among them, that have it among their own."""
    near = [set(row) for row in nearest[:, : neighbours + 1].tolist()]
    return [{other for other in own if row in near[other]} for row, own in enumerate(near)]


def _jaccard(left: Matrix, right: Matrix) -> Matrix:
    """Give the Jaccard distances of weights: (Q, N) and (G, N) to (Q, G)."""
    distances = np.empty((len(left), len(right)), np.float32)
    for row, weights in enumerate(left):
        used = np.flatnonzero(weights)
        shared = np.minimum(weights[used], right[:, used]).sum(axis=1)
        distances[row] = 1 - shared / (2 - shared)
    return distances
