"""Verification: does a pair show the same person (or thing), by its score alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crossmodal.errors import EvaluationError

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]

FALSE_ACCEPT_RATES = (1e-3, 1e-4)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationReport:
    """How well scores tell pairs that show the same from pairs that do not.

    ``accuracy`` is the mean over the folds, each judged with the threshold that is best on the others, and
    ``accuracy_std`` its standard deviation, as for LFW. ``auc``: the chance that a pair of the same scores
    higher than one of different, ties counting half. ``eer``: the rate at which as many are wrongly accepted
    as rejected. ``tar_at_far``: the share of same pairs accepted at the highest rate of false accepts that
    does not exceed each given one.
    """

    pairs: int
    accuracy: float
    accuracy_std: float
    auc: float
    eer: float
    tar_at_far: dict[float, float]

    def to_dict(self) -> dict[str, float]:
        """Give the measures for JSON, as fractions."""
        return {
            "accuracy": self.accuracy,
            "accuracy_std": self.accuracy_std,
            "auc": self.auc,
            "eer": self.eer,
            **{f"tar@far={rate:g}": share for rate, share in self.tar_at_far.items()},
        }


def evaluate_verification(
    scores: ArrayLike,
    same: ArrayLike,
    fold: ArrayLike,
    false_accept_rates: Sequence[float] = FALSE_ACCEPT_RATES,
) -> VerificationReport:
    """Measure verification by scores (P,), whether each pair shows the same (P,), and its fold (P,).

    A pair is accepted when its score is the threshold or more.

    :raises EvaluationError: when shapes differ, scores are not finite, there is one fold alone, or pairs of
        either kind are absent.
    """
    values, flags, folds = np.asarray(scores, np.float64), np.asarray(same, bool), np.asarray(fold)
    if values.ndim != 1 or values.shape != flags.shape or values.shape != folds.shape:
        raise EvaluationError(
            f"Scores came as {values.shape}, same as {flags.shape}, folds as {folds.shape}; "
            "give one of each for every pair"
        )
    if not np.isfinite(values).all():
        raise EvaluationError(f"{np.count_nonzero(~np.isfinite(values))} scores are NaN or infinite")
    numbers = np.unique(folds)
    if len(numbers) < 2 or not flags.any() or flags.all():
        raise EvaluationError(
            f"Verification needs two folds at least, and pairs of both kinds; seen {len(numbers)} folds, "
            f"{np.count_nonzero(flags)} same and {np.count_nonzero(~flags)} different pairs"
        )
    accuracies = []
    for number in numbers:
        here = folds == number
        threshold = _best_threshold(values[~here], flags[~here])
        accuracies.append(np.mean((values[here] >= threshold) == flags[here]))
    _, right, wrong = _accepted(values, flags)
    accepted, wrongly = right / right[-1], wrong / wrong[-1]
    return VerificationReport(
        pairs=len(values),
        accuracy=float(np.mean(accuracies)),
        accuracy_std=float(np.std(accuracies)),
        auc=float(np.trapezoid(accepted, wrongly)),
        eer=_equal_error(accepted, wrongly),
        tar_at_far={rate: float(accepted[wrongly <= rate].max()) for rate in false_accept_rates},
    )


def _accepted(scores: Numbers, same: Flags) -> tuple[Numbers, Numbers, Numbers]:
    """Give falling thresholds, from infinity, and how many same and different pairs each accepts: (T,)."""
    lowered, group = np.unique(-scores, return_inverse=True)
    right = np.bincount(group, weights=same, minlength=len(lowered)).cumsum()
    wrong = np.bincount(group, weights=~same, minlength=len(lowered)).cumsum()
    return np.append(np.inf, -lowered), np.append(0.0, right), np.append(0.0, wrong)


def _best_threshold(scores: Numbers, same: Flags) -> float:
    """Give the threshold with most pairs right, the highest of equals: half way to the next lower score."""
    thresholds, right, wrong = _accepted(scores, same)
    place = int(np.argmax(right - wrong))
    if place in (0, len(thresholds) - 1):
        return float(thresholds[place])
    return float((thresholds[place] + thresholds[place + 1]) / 2)


def _equal_error(accepted: Numbers, wrongly: Numbers) -> float:
    """Give the rate where the line between two thresholds crosses equal errors."""
    apart = wrongly - (1 - accepted)
    after = int(np.argmax(apart >= 0))
    before = after - 1
    share = apart[before] / (apart[before] - apart[after])
    return float(wrongly[before] + share * (wrongly[after] - wrongly[before]))
