"""Measures by judgements against plain loops: shared, absent and unjudged items, ties and negative scores."""

import math

import numpy as np
import pytest

import crossmodal.metrics.judged as judged
from crossmodal.errors import EvaluationError
from crossmodal.metrics.judged import evaluate_judged


def by_loops(scores: np.ndarray, relevant: list[np.ndarray]) -> dict[str, float]:
    queries = []
    for row, rows in zip(scores, relevant, strict=True):
        if not len(rows):
            continue
        right = set(rows.tolist())
        order = sorted(range(len(row)), key=lambda item: (-row[item], item in right))
        hits = [item in right for item in order]
        ideal = sum(1 / math.log2(i + 2) for i in range(min(10, len(rows))))
        queries.append(
            {
                "recall@1": float(any(hits[:1])),
                "recall@5": float(any(hits[:5])),
                "mean_rank": hits.index(True) + 1,
                "map@r": sum(sum(hits[: i + 1]) / (i + 1) for i in range(len(rows)) if hits[i]) / len(rows),
                "r_precision": sum(hits[: len(rows)]) / len(rows),
                "ndcg@10": sum(1 / math.log2(i + 2) for i in range(10) if hits[i]) / ideal,
            }
        )
    return {name: sum(query[name] for query in queries) / len(queries) for name in queries[0]}


@pytest.mark.parametrize("values", [None, [-1.0, 0.0, 1.0]], ids=["random", "tied"])
def test_every_measure_equals_plain_loops(values, monkeypatch):
    monkeypatch.setattr(judged, "SCORES_PER_BLOCK", 300)
    rng = np.random.default_rng(4)
    draw = rng.standard_normal if values is None else lambda size: rng.choice(values, size)
    queries, gallery = draw((40, 5)).astype(np.float32) + 0.5, draw((60, 5)).astype(np.float32) - 2
    relevant = [rng.permutation(60)[: rng.integers(0, 7)] for _ in range(40)]
    relevant[3] = np.append(relevant[2][:1] if len(relevant[2]) else [0], -1)
    scores = (queries.astype(np.float64) @ gallery.astype(np.float64).T).astype(np.float32)
    assert scores.min() < 0
    seen = evaluate_judged(queries, gallery, relevant)
    expected = by_loops(scores, relevant)
    assert {name: seen.to_dict()[name] for name in expected} == pytest.approx(expected)
    assert seen.queries == sum(len(rows) > 0 for rows in relevant)


def test_nothing_judged_is_refused():
    with pytest.raises(EvaluationError, match="None of 2 queries has anything relevant"):
        evaluate_judged(np.eye(2), np.eye(2), [np.array([], int)] * 2)
