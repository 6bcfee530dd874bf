"""SigLIP: every pair by itself, does it belong together or not."""

import torch
from torch import Tensor
from torch.nn import functional as F

from crossmodal.errors import TrainingError
from training.losses.base import Temperature
from training.losses.settings import LossSettings
from training.losses.two_way import TwoWayLoss


class SigLip(TwoWayLoss):
    """The sigmoid loss of Zhai et al. 2023 (https://arxiv.org/abs/2303.15343); all of a group are positives.

    Each asker's costs are summed over all that answer, and the sums averaged over the askers that have a
    positive. With one caption a picture that is the paper's sum over all pairs, divided by the batch size.
    """

    def __init__(self, *, max_scale: float = 100.0) -> None:
        super().__init__()
        self.max_scale = max_scale

    @classmethod
    def from_settings(cls, settings: LossSettings) -> "SigLip":
        """Make the loss as settings have it."""
        return cls(max_scale=settings.max_scale)

    def one_way(
        self, cosines: Tensor, positive: Tensor, negative: Tensor, temperature: Temperature
    ) -> Tensor:
        """Give the mean over askers of the summed costs of their pairs.

        :raises TrainingError: when the temperature has no bias.
        """
        if temperature.bias is None:
            raise TrainingError(
                "SigLIP needs a bias beside the scale, and the model has none; set model.bias to -10"
            )
        logits = temperature.capped(self.max_scale) * cosines + temperature.bias
        costs = -F.logsigmoid(torch.where(positive, logits, -logits)).masked_fill(~(positive | negative), 0)
        asking = positive.any(dim=1)
        return costs[asking].sum() / asking.sum().clamp(min=1)
