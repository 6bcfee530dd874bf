"""Verification against scikit-learn's curve and plain loops."""

import numpy as np
import pytest

from crossmodal.errors import EvaluationError
from crossmodal.metrics.verification import evaluate_verification

sklearn_metrics = pytest.importorskip("sklearn.metrics")


def made(ties: bool, seed: int = 0, pairs: int = 600):
    """Give scores, negative ones among them, of pairs that overlap; rounded where there are to be ties."""
    rng = np.random.default_rng(seed)
    same = rng.random(pairs) < 0.5
    scores = rng.standard_normal(pairs) * 0.3 + 0.5 * same - 0.3
    return np.round(scores, 1) if ties else scores, same, np.arange(pairs) // (pairs // 10)


@pytest.mark.parametrize("ties", [False, True])
def test_the_curve_is_scikit_learns(ties):
    scores, same, fold = made(ties)
    report = evaluate_verification(scores, same, fold, (0.1, 1e-2, 1e-3))
    assert report.auc == pytest.approx(sklearn_metrics.roc_auc_score(same, scores))
    wrong, right, _ = sklearn_metrics.roc_curve(same, scores, drop_intermediate=False)
    for rate, share in report.tar_at_far.items():
        assert share == pytest.approx(right[wrong <= rate].max())
    fine = np.linspace(0, 1, 200001)
    missed = 1 - np.interp(fine, *(np.array(side) for side in _steps_as_lines(wrong, right)))
    assert report.eer == pytest.approx(fine[np.argmin(np.abs(fine - missed))], abs=1e-3)


def _steps_as_lines(wrong, right):
    """Give a curve as numpy interpolates one: of points above one another only the highest and the lowest."""
    nudge = np.arange(len(wrong)) * 1e-12
    return wrong + nudge, right


@pytest.mark.parametrize("ties", [False, True])
def test_accuracy_takes_the_threshold_of_the_other_folds(ties):
    scores, same, fold = made(ties, seed=1, pairs=100)
    accuracies = []
    for number in range(10):
        others = fold != number
        levels = sorted(set(scores[others]), reverse=True)
        tried = [np.inf, *levels]
        counts = [np.count_nonzero((scores[others] >= t) == same[others]) for t in tried]
        place = counts.index(max(counts))
        lower = tried[place + 1] if 0 < place < len(tried) - 1 else tried[place]
        threshold = (tried[place] + lower) / 2
        accuracies.append(np.mean((scores[~others] >= threshold) == same[~others]))
    report = evaluate_verification(scores, same, fold)
    assert report.accuracy == pytest.approx(np.mean(accuracies))
    assert report.accuracy_std == pytest.approx(np.std(accuracies))


def test_pairs_that_are_told_apart_entirely():
    same = np.tile([True, False], 50)
    report = evaluate_verification(np.where(same, 0.2, -0.2), same, np.arange(100) // 10)
    assert report.to_dict() == {
        "accuracy": 1,
        "accuracy_std": 0,
        "auc": 1,
        "eer": 0,
        "tar@far=0.001": 1,
        "tar@far=0.0001": 1,
    }


def test_scores_that_say_nothing():
    same = np.tile([True, False], 50)
    report = evaluate_verification(np.zeros(100), same, np.arange(100) // 10)
    assert (report.accuracy, report.auc, report.eer, report.tar_at_far[1e-3]) == (0.5, 0.5, 0.5, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.1, 0.2], [True], [0, 1]), r"Scores came as \(2,\), same as \(1,\)"),
        (([0.1, np.nan], [True, False], [0, 1]), "1 scores are NaN"),
        (([0.1, 0.2], [True, True], [0, 1]), "2 same and 0 different pairs"),
        (([0.1, 0.2], [True, False], [0, 0]), "seen 1 folds"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(EvaluationError, match=message):
        evaluate_verification(*arguments)
