"""Expanded queries against loops."""

import numpy as np
import pytest

from crossmodal.ranking import expansion


def test_each_query_moves_to_its_nearest_items_by_their_scores(monkeypatch):
    monkeypatch.setattr(expansion, "QUERIES_AT_ONCE", 4)
    rng = np.random.default_rng(0)
    queries, gallery = rng.standard_normal((11, 5)), rng.standard_normal((20, 5))
    queries, gallery = (
        (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32) for rows in (queries, gallery)
    )
    seen = expansion.expand_queries(queries, gallery, neighbours=8, alpha=2)
    assert (queries @ gallery.T).min() < 0
    for query, expanded in zip(queries, seen, strict=True):
        nearest = sorted(gallery, key=lambda item: -float(query @ item))[:8]
        moved = query + sum(max(0, float(query @ item)) ** 2 * item for item in nearest)
        assert expanded == pytest.approx(moved / np.linalg.norm(moved), abs=1e-5)


def test_more_neighbours_than_items_take_all_of_them():
    one = np.array([[1.0, 0]], np.float32)
    assert expansion.expand_queries(one, np.array([[0.6, 0.8]], np.float32)) == pytest.approx(
        (one + 0.6**3 * np.array([0.6, 0.8])) / np.linalg.norm(one + 0.6**3 * np.array([0.6, 0.8])), abs=1e-6
    )
