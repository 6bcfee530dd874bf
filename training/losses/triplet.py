"""Hard-negative triplets: a positive is to beat the hardest negative by a margin."""

import torch
from torch import Tensor
from torch.nn import functional as F

from training.losses.base import Temperature
from training.losses.settings import LossSettings
from training.losses.two_way import TwoWayLoss, excluded, mean_of_askers


class Triplet(TwoWayLoss):
    """VSE++, the max of hinges (Faghri et al. 2018, https://arxiv.org/abs/1707.05612), on cosines.

    Early in training the hardest negative is often noise and all embeddings collapse to one point, so for the
    first ``mean_hinge_steps`` the hinges of all negatives are averaged (the paper's sum of hinges, divided).
    The paper sums over the batch and both ways; here all is averaged, so that the batch size does not matter.
    """

    def __init__(self, *, margin: float = 0.2, mean_hinge_steps: int = 0) -> None:
        super().__init__()
        self.margin = margin
        self.mean_hinge_steps = mean_hinge_steps
        self.hardest = mean_hinge_steps == 0

    @classmethod
    def from_settings(cls, settings: LossSettings) -> "Triplet":
        """Make the loss as settings have it."""
        return cls(margin=settings.margin, mean_hinge_steps=settings.mean_hinge_steps)

    def at_step(self, step: int) -> None:
        """Ask for the hardest negative alone once the warm-up is over."""
        self.hardest = step >= self.mean_hinge_steps

    def one_way(
        self, cosines: Tensor, positive: Tensor, negative: Tensor, temperature: Temperature
    ) -> Tensor:
        """Give the mean hinge of the positive pairs; without negatives there is none to beat: 0."""
        askers, found = positive.nonzero(as_tuple=True)
        hits = cosines[askers, found]
        rivals = excluded(cosines, negative)
        if self.hardest:
            hinges = torch.relu(self.margin + rivals.amax(dim=1)[askers] - hits)
        else:
            hinges = self._summed(cosines, rivals)[askers, found] / negative.sum(dim=1)[askers].clamp(min=1)
        return mean_of_askers(hinges, askers, len(cosines))

    def _summed(self, cosines: Tensor, rivals: Tensor) -> Tensor:
        """Give for each answer, were it the positive, the sum of the hinges of all rivals: (A, C).

        Of rivals in order, those that come within the margin are the first so many, and their sum is a
        running one. So there is no table of positives times rivals, for long queues have many of both.
        """
        ordered = rivals.sort(dim=1, descending=True).values
        running = F.pad(ordered.cumsum(dim=1), (1, 0))
        missing = self.margin - cosines
        count = torch.searchsorted(-ordered, missing)
        return count * missing + running.gather(1, count)
