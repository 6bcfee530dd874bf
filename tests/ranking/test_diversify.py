"""Hits without copies, and hits chosen for what they add, against loops and by hand."""

import numpy as np
import pytest

from crossmodal.ranking.diversify import spread, without_near_duplicates


def at(*degrees: float) -> np.ndarray:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_a_copy_of_a_better_hit_goes_and_a_copy_of_a_gone_one_stays():
    hits = at(0, 15, 30, 90)  # each 15 degrees from the next: cosine 0.966; 30 degrees: 0.866
    assert without_near_duplicates(hits, threshold=0.95).tolist() == [0, 2, 3]
    assert without_near_duplicates(hits, threshold=0.99).tolist() == [0, 1, 2, 3]
    assert without_near_duplicates(hits[:0]).tolist() == []


def test_chosen_hits_are_those_of_the_definition():
    rng = np.random.default_rng(0)
    hits = rng.standard_normal((25, 4))
    hits = (hits / np.linalg.norm(hits, axis=1, keepdims=True)).astype(np.float32)
    scores = rng.random(25)
    chosen: list[int] = []
    while len(chosen) < 9:
        left = [row for row in range(25) if row not in chosen]
        chosen.append(
            max(
                left,
                key=lambda row: (
                    0.6 * scores[row] - 0.4 * max((float(hits[row] @ hits[c]) for c in chosen), default=0)
                ),
            )
        )
    assert spread(scores, hits, 9, relevance=0.6).tolist() == chosen


@pytest.mark.parametrize("k", [4, 10])
def test_relevance_alone_is_the_order_of_scores(k):
    scores = np.array([0.1, 0.9, 0.5, 0.7])
    assert spread(scores, at(0, 1, 2, 3), k, relevance=1.0).tolist() == [1, 3, 2, 0]
