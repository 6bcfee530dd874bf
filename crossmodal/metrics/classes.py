"""Image retrieval by class: each picture among all others, and how well clusters match classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crossmodal.errors import EvaluationError, MissingPackageError
from crossmodal.metrics.counting import SCORES_PER_BLOCK, blocks
from crossmodal.metrics.measures import DirectionReport, measure_pairs
from crossmodal.metrics.retrieval import check_ranks, checked_embeddings

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterReport:
    """How k-means with as many clusters as classes matches the classes.

    ``nmi`` and ``ami``: normalised and adjusted mutual information; ``f1``: of pairs, a pair being right when
    both of a class are in one cluster.
    """

    nmi: float
    ami: float
    f1: float

    def to_dict(self) -> dict[str, float]:
        """Give the measures for JSON."""
        return {"nmi": self.nmi, "ami": self.ami, "f1": self.f1}


def evaluate_classes(
    embeddings: ArrayLike, classes: ArrayLike, ks: Sequence[int] = (1, 5, 10)
) -> DirectionReport:
    """Measure each picture (N, D) as a query among all others, those of its class (N,) being relevant.

    A picture that is alone in its class distracts, and is not asked. Of equal scores the wrong ones rank
    first.

    :raises EvaluationError: when shapes differ, values are not finite, or no class has two pictures.
    """
    pictures, _ = checked_embeddings(embeddings, embeddings)
    check_ranks(ks)
    labels = _labels(classes, len(pictures))
    queries: list[Integers] = []
    ahead: list[Integers] = []
    wide = pictures.astype(np.float64)
    for some in blocks(len(pictures), max(1, SCORES_PER_BLOCK // (2 * len(pictures)))):
        scores = (wide[some] @ wide.T).astype(np.float32)
        for query, line in enumerate(scores, some.start):
            relevant = labels == labels[query]
            wrong = line[~relevant]
            relevant[query] = False
            counts = np.array([np.count_nonzero(wrong >= score) for score in line[relevant]], np.int64)
            queries.append(np.full(len(counts), query))
            ahead.append(counts)
    if not any(len(some) for some in ahead):
        raise EvaluationError(f"No class of {len(pictures)} pictures has two; give classes that repeat")
    return measure_pairs(np.concatenate(queries), np.concatenate(ahead), ks)


def evaluate_clusters(embeddings: ArrayLike, classes: ArrayLike, seed: int = 0) -> ClusterReport:
    """Cluster pictures (N, D) by k-means into as many clusters as there are classes (N,), and compare.

    :raises MissingPackageError: when scikit-learn is not installed.
    """
    try:
        from sklearn.cluster import KMeans
        from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score
    except ImportError:
        raise MissingPackageError(
            "Clusters need scikit-learn: pip install 'crossmodal-retrieval[eval]'"
        ) from None
    pictures, _ = checked_embeddings(embeddings, embeddings)
    labels = _labels(classes, len(pictures))
    found = KMeans(len(np.unique(labels)), n_init=10, random_state=seed).fit_predict(pictures)
    return ClusterReport(
        nmi=float(normalized_mutual_info_score(labels, found)),
        ami=float(adjusted_mutual_info_score(labels, found)),
        f1=pair_f1(labels, found),
    )


def pair_f1(classes: Integers, clusters: Integers) -> float:
    """Give F1 over all pairs of things: together in a class, and put together in a cluster."""
    _, rows = np.unique(classes, return_inverse=True)
    _, columns = np.unique(clusters, return_inverse=True)
    table = np.zeros((rows.max() + 1, columns.max() + 1))
    np.add.at(table, (rows, columns), 1)
    both, in_class, in_cluster = (_pairs(table), _pairs(table.sum(axis=1)), _pairs(table.sum(axis=0)))
    return 2 * both / (in_class + in_cluster) if in_class + in_cluster else 1.0


def _pairs(counts: NDArray[np.float64]) -> float:
    return float((counts * (counts - 1) / 2).sum())


def _labels(classes: ArrayLike, rows: int) -> Integers:
    """Number the classes.

    :raises EvaluationError: when there is not one for each picture.
    """
    given = np.asarray(classes)
    if given.shape != (rows,):
        raise EvaluationError(f"Classes came as {given.shape}; give one for each of {rows} pictures")
    return np.unique(given, return_inverse=True)[1].astype(np.int64)
