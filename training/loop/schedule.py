"""The rate of each step: up in a line, then down along a cosine."""

import math


def rate_at(step: int, total: int, warmup: float) -> float:
    """Give the share of the top rate for a step, counted from 0.

    >>> [round(rate_at(step, 10, 0.2), 2) for step in (0, 1, 2, 9)]
    [0.5, 1.0, 1.0, 0.04]
    """
    rising = math.ceil(warmup * total)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))
