"""What every loss over pictures and texts is, and what it is told: who belongs together, and how sharply."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """Which of N pictures and M texts belong together.

    ``positive``: bool (N, M), of one group. ``ignored``: bool (N, M), neither pulled nor pushed (repeated
    captions, near-duplicates), and never positive. All else is negative.

    What is past answers beside the others, and never asks: ``past_texts`` relates the N pictures to Q past
    texts, (N, Q), and ``past_images`` Q past pictures to the M texts, (Q, M). Nothing relates past to past.
    """

    positive: Tensor
    ignored: Tensor
    past_texts: "Relation | None" = None
    past_images: "Relation | None" = None

    def __post_init__(self) -> None:
        if self.positive.shape != self.ignored.shape or self.positive.ndim != 2:
            seen = f"{tuple(self.positive.shape)} and {tuple(self.ignored.shape)}"
            raise ValueError(f"positive and ignored are both (N, M), got {seen}")
        images, texts = self.positive.shape
        if self.past_texts is not None and self.past_texts.positive.shape[0] != images:
            raise ValueError(f"past_texts is ({images}, Q), got {tuple(self.past_texts.positive.shape)}")
        if self.past_images is not None and self.past_images.positive.shape[1] != texts:
            raise ValueError(f"past_images is (Q, {texts}), got {tuple(self.past_images.positive.shape)}")

    @classmethod
    def from_groups(
        cls, image_groups: Tensor, text_groups: Tensor, ignored: Tensor | None = None
    ) -> "Relation":
        """Take those of one group as positives, whatever ``ignored``, bool (N, M), says of them.

        Groups are int64, (N,) and (M,); what has a number below 0 belongs to nothing.
        """
        images, texts = image_groups[:, None], text_groups[None, :]
        positive = (images == texts) & (images >= 0)
        ignored = torch.zeros_like(positive) if ignored is None else ignored & ~positive
        return cls(positive=positive, ignored=ignored)

    @property
    def negative(self) -> Tensor:
        """What is pushed apart: bool (N, M)."""
        return ~(self.positive | self.ignored)

    @property
    def of_images(self) -> "Relation":
        """What the pictures ask about, the texts and behind them the past ones: (N, M + Q)."""
        return self._beside(self.past_texts, dim=1)

    @property
    def of_texts(self) -> "Relation":
        """What the texts ask about, the pictures and behind them the past ones: (M, N + Q)."""
        whole = self._beside(self.past_images, dim=0)
        return Relation(positive=whole.positive.T, ignored=whole.ignored.T)

    def _beside(self, past: "Relation | None", *, dim: int) -> "Relation":
        if past is None:
            return Relation(positive=self.positive, ignored=self.ignored)
        return Relation(
            positive=torch.cat([self.positive, past.positive], dim),
            ignored=torch.cat([self.ignored, past.ignored], dim),
        )


@dataclass(frozen=True, slots=True)
class Temperature:
    """How sharply scores are told apart: ``scale`` times the cosine plus ``bias``, scalars of the model."""

    scale: Tensor
    bias: Tensor | None = None

    def capped(self, most: float) -> Tensor:
        """Give the scale, ``most`` where it is above.

        The gradient is that of the scale itself: were it nought, a scale above would never come down.
        """
        return self.scale - (self.scale - most).clamp(min=0).detach()


class PairLoss(nn.Module, ABC):
    """A loss over N pictures and M texts, with the temperature of the model."""

    @abstractmethod
    def forward(
        self,
        image_embeddings: Tensor,
        text_embeddings: Tensor,
        relation: Relation,
        temperature: Temperature,
    ) -> Tensor:
        """Give the loss, a scalar in float32 or better, of embeddings (N, D) and (M, D), L2-normalised.

        Where the relation has past ones, theirs are behind them: (N + Q, D) and (M + Q, D).
        A batch that teaches nothing, for want of positives or of negatives, gives 0 with a gradient of 0.
        What is no number among the embeddings makes the loss no number.
        """

    def at_step(self, step: int) -> None:
        """Become what the loss is at a step of training, counted from 0; most are the same at all steps."""
