"""Losses that ask the same thing both ways: each picture for its texts, and each text for its pictures."""

from abc import abstractmethod

import torch
from torch import Tensor

from training.losses.base import PairLoss, Relation, Temperature


class TwoWayLoss(PairLoss):
    """The mean of two questions; what one question costs is all that a loss of this kind has to say.

    Cosines are computed in float32 at least, also under autocast.
    """

    def forward(
        self,
        image_embeddings: Tensor,
        text_embeddings: Tensor,
        relation: Relation,
        temperature: Temperature,
    ) -> Tensor:
        """Give the mean of what the pictures' question costs, and the texts'."""
        images, texts = _exact(image_embeddings), _exact(text_embeddings)
        asking_images, asking_texts = relation.positive.shape
        with torch.autocast(images.device.type, enabled=False):
            to_texts = self._ask(images[:asking_images], texts, relation.of_images, temperature)
            to_images = self._ask(texts[:asking_texts], images, relation.of_texts, temperature)
        return (to_texts + to_images) / 2

    def _ask(self, asking: Tensor, answering: Tensor, asked: Relation, temperature: Temperature) -> Tensor:
        return self.one_way(asking @ answering.T, asked.positive, asked.negative, temperature)

    @abstractmethod
    def one_way(
        self, cosines: Tensor, positive: Tensor, negative: Tensor, temperature: Temperature
    ) -> Tensor:
        """Give the mean over A asking rows, of those that have a positive; all matrices are (A, C)."""


def _exact(embeddings: Tensor) -> Tensor:
    return embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))


def excluded(values: Tensor, but: Tensor) -> Tensor:
    """Give values (A, C) with the lowest number there is wherever ``but``, bool (A, C), does not hold.

    It is finite, for the gradient of a ``logsumexp`` over minus infinities is no number.
    """
    return values.masked_fill(~but, torch.finfo(values.dtype).min)


def mean_of_askers(costs: Tensor, askers: Tensor, count: int) -> Tensor:
    """Give the mean over askers of the mean of each one's costs.

    :param costs: (P,), of a positive pair each.
    :param askers: (P,), the row of each pair's asker, below ``count``.
    """
    pairs = torch.bincount(askers, minlength=count)
    total: Tensor = (costs / pairs[askers]).sum()
    return total / (pairs > 0).sum().clamp(min=1)
