"""From the embeddings of a batch to one number: beside those of all processes, and of the past."""

from accelerate import Accelerator
from torch import Tensor

from training.data.batches import Batch
from training.losses import PairLoss, Relation
from training.model.trainable import Trainable
from training.negatives.gather import gather_pairs
from training.negatives.ignored import IgnoredPairs
from training.negatives.queues import PairQueues


class Objective:
    """The loss of a batch as training sees it."""

    def __init__(
        self,
        loss: PairLoss,
        model: Trainable,
        ignored: IgnoredPairs,
        queues: PairQueues | None,
        accelerator: Accelerator,
    ) -> None:
        self.loss = loss
        self.model = model
        self.ignored = ignored
        self.queues = queues
        self.accelerator = accelerator
        self._step = 0

    def at_step(self, step: int) -> None:
        """Become what the loss is at a step, counted from 0."""
        self._step = step
        self.loss.at_step(step)

    def __call__(self, images: Tensor, texts: Tensor, batch: Batch) -> Tensor:
        """Give the loss of embeddings (N, D) and (M, D) of this process among those of all."""
        images, texts, image_groups, text_groups, image_rows, text_rows, text_numbers = gather_pairs(
            *(self.accelerator, images, texts, batch.image_groups, batch.text_groups),
            *(batch.image_rows, batch.text_rows, batch.text_numbers),
        )
        origins = image_rows, text_rows, text_numbers
        ignored = self.ignored.mask(*origins)
        if self.queues is None:
            relation = Relation.from_groups(image_groups, text_groups, ignored)
            loss: Tensor = self.loss(images, texts, relation, self.model.temperature)
            return loss
        related = self.queues.relate(
            *(images, texts, image_groups, text_groups), step=self._step, ignored=ignored, origins=origins
        )
        loss = self.loss(*related, self.model.temperature)
        self.queues.push(images, texts, image_groups, text_groups, origins=origins)
        return loss
