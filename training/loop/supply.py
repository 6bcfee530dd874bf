"""Where a run's batches come from: what the plan draws, loaded as pictures or taken as features."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from training.data.batches import Batch
from training.data.plan import BatchPlan, Draw
from training.negatives.mining import HardNegatives


class Loader(Protocol):
    """Makes batches of draws, in their order."""

    def load(self, draws: Iterable[Draw]) -> Iterator[Batch]:
        """Load them."""


@dataclass(slots=True)
class Supply:
    """Batches of any epoch, from any of its steps on; ``negatives`` join those drawn from then on."""

    plan: BatchPlan
    loader: Loader
    negatives: HardNegatives | None = None

    @property
    def steps(self) -> int:
        """How many batches an epoch has."""
        return self.plan.steps

    def batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """Give the batches of an epoch from one of its steps on."""
        mined: Any = self.negatives  # frozen, and so no instance of the plan's protocol to mypy
        return self.loader.load(self.plan.batches(epoch, start, mined))


def moved(batch: Batch, device: torch.device) -> Batch:
    """Give a batch on a device."""
    parts: dict[str, Any] = {field.name: getattr(batch, field.name) for field in fields(batch)}
    there = {name: part.to(device) for name, part in parts.items() if isinstance(part, Tensor)}
    return replace(batch, **there)  # type: ignore[arg-type]  # the tensors alone
