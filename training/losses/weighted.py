"""Several losses at once."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from training.losses.base import PairLoss, Relation, Temperature


class WeightedSum(PairLoss):
    """The sum of losses, each times its weight."""

    def __init__(self, losses: Sequence[PairLoss], weights: Sequence[float]) -> None:
        super().__init__()
        assert len(losses) == len(weights)
        self.losses = nn.ModuleList(losses)
        self.weights = tuple(weights)

    def forward(
        self,
        image_embeddings: Tensor,
        text_embeddings: Tensor,
        relation: Relation,
        temperature: Temperature,
    ) -> Tensor:
        """Give the weighted sum."""
        costs = [loss(image_embeddings, text_embeddings, relation, temperature) for loss in self.losses]
        weighted = [weight * cost for weight, cost in zip(self.weights, costs, strict=True)]
        return torch.stack(weighted).sum()

    def at_step(self, step: int) -> None:
        """Pass the step on."""
        for loss in self.losses:
            cast(PairLoss, loss).at_step(step)
