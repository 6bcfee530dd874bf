"""Symmetric InfoNCE over groups, with smoothed targets or hard negatives that weigh more, where wanted."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from training.losses.base import Temperature
from training.losses.settings import LossSettings
from training.losses.two_way import TwoWayLoss, excluded, mean_of_askers


class InfoNce(TwoWayLoss):
    """The cross-entropy of finding a positive among the negatives (van den Oord et al. 2018), both ways.

    With one caption a picture it is CLIP's loss (Radford et al. 2021, https://arxiv.org/abs/2103.00020).
    Where an asker has several positives, each is a cross-entropy of its own, with the other positives left
    out of the denominator, so that the captions of a picture never push one another away: SINCERE (Feeney and
    Hughes 2023, https://arxiv.org/abs/2309.14277), and not SupCon, whose denominator holds them all. The
    costs of an asker's positives are averaged, then those of all askers.

    HN-NCE (Radenovic et al. 2023, https://arxiv.org/abs/2301.02280): with ``hn_beta`` each negative in the
    denominator weighs in proportion to exp(beta s / tau), the weights of an asker being 1 on average and
    without gradient; ``hn_alpha`` is the weight of the positive there.
    """

    def __init__(
        self,
        *,
        max_scale: float = 100.0,
        label_smoothing: float = 0.0,
        hn_beta: float = 0.0,
        hn_alpha: float = 1.0,
    ) -> None:
        super().__init__()
        self.max_scale = max_scale
        self.label_smoothing = label_smoothing
        self.hn_beta = hn_beta
        self.log_alpha = math.log(hn_alpha) if hn_alpha else -math.inf

    @classmethod
    def from_settings(cls, settings: LossSettings) -> "InfoNce":
        """Make the loss as settings have it."""
        return cls(
            max_scale=settings.max_scale,
            label_smoothing=settings.label_smoothing,
            hn_beta=settings.hn_beta,
            hn_alpha=settings.hn_alpha,
        )

    def one_way(
        self, cosines: Tensor, positive: Tensor, negative: Tensor, temperature: Temperature
    ) -> Tensor:
        """Give the mean cross-entropy; an asker without negatives has nothing to tell apart, and adds 0."""
        logits = temperature.capped(self.max_scale) * cosines
        rivals = self._rivals(logits, negative)
        askers, found = positive.nonzero(as_tuple=True)
        hits = logits[askers, found]
        costs = torch.logaddexp(hits.new_tensor(self.log_alpha), rivals[askers] - hits)
        if self.label_smoothing:
            costs = costs + self.label_smoothing * (hits - _mean_of_all(hits, logits, negative, askers))
        costs = torch.where(negative.any(dim=1)[askers], costs, 0.0 * hits)
        return mean_of_askers(costs, askers, len(logits))

    def _rivals(self, logits: Tensor, negative: Tensor) -> Tensor:
        """Give the logarithm of what an asker's negatives put into its denominator: (A,)."""
        if self.hn_beta:
            shares = F.log_softmax(excluded(self.hn_beta * logits.detach(), negative), dim=1)
            logits = logits + shares + negative.sum(dim=1, keepdim=True).to(shares.dtype).log()
        return torch.logsumexp(excluded(logits, negative), dim=1)


def _mean_of_all(hits: Tensor, logits: Tensor, negative: Tensor, askers: Tensor) -> Tensor:
    """Give, for each positive pair, the mean logit of all that its asker chooses among: (P,)."""
    total = logits.masked_fill(~negative, 0).sum(dim=1)
    return (hits + total[askers]) / (1 + negative.sum(dim=1)[askers])
