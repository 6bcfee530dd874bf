"""Intervals and tests against formulas, against every exchange there is, and by seed."""

import itertools

import numpy as np
import pytest

from crossmodal.errors import EvaluationError
from crossmodal.metrics.significance import Totals, differences, intervals


def totals(values: np.ndarray, group: np.ndarray | None = None, groups: int | None = None) -> Totals:
    group = np.arange(len(values)) if group is None else group
    return Totals.of({"m": values}, group, len(values) if groups is None else groups)


def test_an_interval_is_what_the_formula_for_independent_queries_gives():
    values = np.random.default_rng(1).random(2000) ** 2
    [seen] = intervals([totals(values)], samples=4000)
    margin = 1.96 * values.std() / len(values) ** 0.5
    assert seen["m"] == pytest.approx((values.mean() - margin, values.mean() + margin), abs=0.1 * margin)


def test_captions_that_say_the_same_of_a_picture_count_as_one():
    values = np.random.default_rng(2).random(300)
    alone = intervals([totals(values)])
    fivefold = intervals([totals(np.repeat(values, 5), np.repeat(np.arange(300), 5), 300)])
    assert fivefold[0]["m"] == pytest.approx(alone[0]["m"])


def test_pictures_without_captions_may_be_drawn():
    [seen] = intervals([totals(np.array([1.0, 1.0]), np.array([0, 3]), 4)])
    assert seen["m"][1] == 1.0


def test_the_same_seed_gives_the_same_and_another_another():
    values = np.random.default_rng(3).random(100)
    assert intervals([totals(values)], seed=7) == intervals([totals(values)], seed=7)
    assert intervals([totals(values)], seed=7) != intervals([totals(values)], seed=8)


def test_p_is_the_share_of_all_exchanges_that_lead_as_far_apart():
    rng = np.random.default_rng(4)
    group = np.repeat(np.arange(10), [1, 3, 2, 1, 1, 4, 2, 2, 1, 3])
    first = rng.random(20)
    second = first + 0.08 + 0.3 * rng.standard_normal(20)
    seen = differences(totals(first, group, 10), totals(second, group, 10), samples=20000)["m"]
    apart = np.bincount(group, weights=second - first)
    exchanges = [abs(np.dot(signs, apart)) for signs in itertools.product([-1, 1], repeat=10)]
    p = np.mean(np.array(exchanges) >= abs(apart.sum()) - 1e-12)
    assert 0.02 < p < 0.98
    assert seen.p == pytest.approx(p, abs=0.015)
    assert seen.difference == pytest.approx((second - first).mean())
    assert seen.low < seen.difference < seen.high


def test_a_model_does_not_differ_from_itself_and_differs_from_a_better_one():
    values = np.random.default_rng(5).random(200)
    same = differences(totals(values), totals(values))["m"]
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)
    better = differences(totals(values), totals(values + 0.1), samples=999)["m"]
    assert better.p == pytest.approx(1 / 1000)
    assert (better.low, better.high) == pytest.approx((0.1, 0.1))


def test_models_that_were_asked_different_queries_are_refused():
    with pytest.raises(EvaluationError, match="not asked the same queries"):
        differences(totals(np.ones(4)), totals(np.ones(4), np.array([0, 0, 1, 2]), 4))
    with pytest.raises(EvaluationError, match="Only the same groups"):
        intervals([totals(np.ones(4)), totals(np.ones(5))])
