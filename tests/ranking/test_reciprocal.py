"""k-reciprocal re-ranking against loops over the paper's definitions, and where plain distance fails."""

import numpy as np
import pytest

from crossmodal.errors import EvaluationError
from crossmodal.ranking import reciprocal
from crossmodal.ranking.reciprocal import k_reciprocal


def normalised(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def by_definition(queries, gallery, k1, k2, lam):
    things = [row.astype(np.float64) for row in (*queries, *gallery)]
    n = len(things)
    d = [[float(((a - b) ** 2).sum()) for b in things] for a in things]
    d = [[value / max(row) for value in row] for row in d]
    rank = [sorted(range(n), key=lambda j, row=row: row[j]) for row in d]

    def mutual(i, k):
        return {j for j in rank[i][: k + 1] if i in rank[j][: k + 1]}

    v = []
    for i in range(n):
        own = mutual(i, k1)
        grown = set(own)
        for j in own:
            other = mutual(j, round(k1 / 2))
            if len(other & own) > 2 / 3 * len(other):
                grown |= other
        weights = [float(np.exp(-d[i][j])) if j in grown else 0.0 for j in range(n)]
        v.append(np.array(weights) / sum(weights))
    v = [np.mean([v[j] for j in rank[i][:k2]], axis=0) for i in range(n)]
    q = len(queries)
    return np.array(
        [
            [
                -(
                    (1 - lam) * (1 - np.minimum(v[i], v[j]).sum() / np.maximum(v[i], v[j]).sum())
                    + lam * d[i][j]
                )
                for j in range(q, n)
            ]
            for i in range(q)
        ]
    )


def test_scores_are_those_of_the_definition():
    rng = np.random.default_rng(0)
    queries, gallery = normalised(rng.standard_normal((9, 5))), normalised(rng.standard_normal((31, 5)))
    seen = k_reciprocal(queries, gallery, neighbours=8, expansion=3, original=0.3)
    assert seen == pytest.approx(by_definition(queries, gallery, 8, 3, 0.3), abs=1e-5)


def test_the_original_distance_alone_keeps_the_order():
    rng = np.random.default_rng(1)
    queries, gallery = normalised(rng.standard_normal((9, 5))), normalised(rng.standard_normal((31, 5)))
    seen = k_reciprocal(queries, gallery, original=1.0)
    assert np.array_equal(np.argsort(-seen, axis=1), np.argsort(-(queries @ gallery.T), axis=1))


def test_too_many_things_are_refused(monkeypatch):
    monkeypatch.setattr(reciprocal, "MOST_THINGS", 10)
    with pytest.raises(EvaluationError, match="of 11 things"):
        k_reciprocal(np.eye(5, 6), np.eye(6))
