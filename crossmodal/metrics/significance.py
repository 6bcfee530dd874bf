"""How sure a mean over queries is, and whether two models differ, when queries come in groups.

The captions of one picture are no independent queries: what is drawn is pictures, and their captions come
along, a bootstrap of clusters (Davison and Hinkley, "Bootstrap Methods and their Application", 1997, 3.8).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossmodal.errors import EvaluationError

Numbers = NDArray[np.float64]
Integers = NDArray[np.int64]

LEVEL = 0.95
SAMPLES = 2000
DRAWS_AT_ONCE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Queries added up by group: ``sums`` (G, V), for each of V values by name, and ``counts`` (G,)."""

    names: tuple[str, ...]
    sums: Numbers
    counts: Numbers

    @classmethod
    def of(cls, values: Mapping[str, Numbers], group: Integers, groups: int) -> "Totals":
        """Add up values (Q,) of queries by their group (Q,), which is a number below ``groups``."""
        sums = [np.bincount(group, weights=value, minlength=groups) for value in values.values()]
        counts = np.bincount(group, minlength=groups).astype(np.float64)
        return cls(names=tuple(values), sums=np.stack(sums, axis=1), counts=counts)

    def means(self, weights: Numbers) -> Numbers:
        """Give the means (B, V) for B ways to weight the groups: (B, G)."""
        return np.asarray((weights @ self.sums) / np.maximum(weights @ self.counts, 1)[:, None])


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How much higher the second model's mean is: its interval, and how likely chance alone gives as much."""

    difference: float
    low: float
    high: float
    p: float


def intervals(
    sides: Sequence[Totals], *, samples: int = SAMPLES, level: float = LEVEL, seed: int = 0
) -> list[dict[str, tuple[float, float]]]:
    """Give for each side, by name, the interval in which its mean lies (percentile bootstrap).

    All sides are of the same groups and are drawn together, so that sums over them may be made by ``drawn``.
    """
    means = drawn(sides, samples=samples, seed=seed)
    return [
        {name: interval(side[:, i], level) for i, name in enumerate(totals.names)}
        for totals, side in zip(sides, means, strict=True)
    ]


def drawn(sides: Sequence[Totals], *, samples: int = SAMPLES, seed: int = 0) -> list[Numbers]:
    """Give the means (B, V) of each side in B samples of the groups, drawn with replacement."""
    groups = _common_groups(sides)
    rng = np.random.default_rng(seed)
    parts = [[side.means(weights) for side in sides] for weights in _draws(rng, groups, samples)]
    return [np.concatenate(side) for side in zip(*parts, strict=True)]


def interval(values: Numbers, level: float = LEVEL) -> tuple[float, float]:
    """Give the middle part of drawn values that holds a share of ``level``."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def differences(
    first: Totals, second: Totals, *, samples: int = SAMPLES, level: float = LEVEL, seed: int = 0
) -> dict[str, Difference]:
    """Test by name whether the second model differs from the first on the same queries.

    The interval is of the paired bootstrap. ``p`` is two-sided, of the test that exchanges the two models at
    random in whole groups, with one added above and below so that it is never nought.

    :raises EvaluationError: when the two were not asked the same queries.
    """
    if first.names != second.names or not np.array_equal(first.counts, second.counts):
        raise EvaluationError("The two models were not asked the same queries; measure both by one protocol")
    groups = _common_groups([first, second])
    before, after = drawn([first, second], samples=samples, seed=seed)
    apart = (second.sums - first.sums) / first.counts.sum()
    rng = np.random.default_rng(seed)
    exchanged = np.concatenate([rng.choice([-1.0, 1.0], (size, groups)) @ apart for size in _sizes(samples)])
    seen = apart.sum(axis=0)
    as_far = (np.abs(exchanged) >= np.abs(seen) - 1e-12).sum(axis=0)
    bounds = [interval(column, level) for column in (after - before).T]
    return {
        name: Difference(
            difference=float(seen[i]),
            low=bounds[i][0],
            high=bounds[i][1],
            p=float((as_far[i] + 1) / (samples + 1)),
        )
        for i, name in enumerate(first.names)
    }


def _common_groups(sides: Sequence[Totals]) -> int:
    numbers = {len(side.counts) for side in sides}
    if len(numbers) != 1:
        raise EvaluationError(f"Only the same groups can be drawn together; seen {sorted(numbers)} groups")
    return numbers.pop()


def _draws(rng: np.random.Generator, groups: int, samples: int) -> Iterator[Numbers]:
    """Yield how often each group is drawn, some samples at a time: (B, G)."""
    for size in _sizes(samples):
        drawn = rng.integers(0, groups, (size, groups)) + groups * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * groups)
        yield counts.reshape(size, groups).astype(np.float64)


def _sizes(samples: int) -> Iterator[int]:
    for start in range(0, samples, DRAWS_AT_ONCE):
        yield min(DRAWS_AT_ONCE, samples - start)
