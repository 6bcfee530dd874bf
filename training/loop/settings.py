"""How long training goes, in which arithmetic, and when it looks at validation."""

from dataclasses import dataclass
from typing import Literal

_LEAST = {
    "epochs": 1,
    "seed": 0,
    "validate_every": 0,
    "patience": 0,
    "save_every": 0,
    "chunk": 0,
    "accumulate": 1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """A run as a whole.

    ``validate_every`` is in steps; 0: at the end of each epoch. ``save_every`` likewise, for the state to go
    on from; 0: whenever validation is due. ``patience``: so many validations without a better rSum end the
    run; 0: none do. ``held_out``: the share of the training groups that validation gets where no source is
    given for it; 0: none. ``trackers``: of ``tensorboard``, ``trackio`` and ``wandb``.

    ``chunk``: so many pairs of a batch go through the towers at once, with the gradient of the whole batch
    (Gao et al. 2021, https://arxiv.org/abs/2101.06983); 0: all. ``accumulate``: so many batches make a step,
    each with negatives of its own only.
    """

    epochs: int = 10
    seed: int = 0
    precision: Literal["float32", "bfloat16"] = "float32"
    validate_every: int = 0
    patience: int = 0
    held_out: float = 0.1
    trackers: tuple[str, ...] = ()
    save_every: int = 0
    chunk: int = 0
    accumulate: int = 1

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {least} or more, got {getattr(self, name)}")
        if not 0 <= self.held_out < 1:
            raise ValueError(f"held_out is a share from 0 to below 1, got {self.held_out}")


@dataclass(frozen=True, slots=True, kw_only=True)
class NegativeSettings:
    """What is no negative: pictures whose cosine, by the encoder that training begins with, is
    ``near_duplicates`` or higher are not told apart by each other's captions; 0: all are.
    """

    near_duplicates: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.near_duplicates <= 1:
            raise ValueError(f"near_duplicates is a cosine from 0 to 1, got {self.near_duplicates}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AveragingSettings:
    """Averages of weights, which are what is validated and kept as the best.

    ``ema``: the decay of a moving average over the steps; 0: none. ``swa``: at the end the mean of so many of
    the last validated weights is tried; 0: none. ``wise_ft``: at the end mixtures with the starting weights
    are tried, with these shares of what was learnt.
    """

    ema: float = 0.0
    swa: int = 0
    wise_ft: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.ema < 1 or self.swa < 0 or self.swa == 1:
            raise ValueError(f"ema is from 0 to below 1, and swa 0 or 2 and more, got {self}")
        if not all(0 <= alpha <= 1 for alpha in self.wise_ft):
            raise ValueError(f"wise_ft holds shares from 0 to 1, got {self.wise_ft}")
