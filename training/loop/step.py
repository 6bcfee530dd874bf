"""One step of training: from batches to moved weights, the same whenever it is taken again."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from accelerate import Accelerator
from torch import Tensor

from crossmodal.errors import TrainingError, first_few
from training.data.batches import Batch
from training.loop.objective import Objective
from training.loop.schedule import rate_at
from training.model.settings import OptimiserSettings
from training.model.trainable import Trainable
from training.negatives.cached_gradients import Chunk, cached_step

REDUCED_AT_ONCE = 32 * 2**20
"""So many bytes of gradients go over the processes in one message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What a step was like: its loss, the length of its gradient before clipping, scale and rate."""

    loss: float
    gradient: float
    scale: float
    rate: float


class Stepper:
    """Takes steps. Each draws from a random state of its own, so that any of them can be taken again.

    Gradients are averaged over the processes by hand, once a step: so cached gradients, accumulation and
    parameters that a batch does not touch need no wrapper that knows of them.

    :param total: how many steps the run has.
    :param keys: of the records, by their row, for messages.
    """

    def __init__(
        self,
        model: Trainable,
        objective: Objective,
        optimiser: torch.optim.Optimizer,
        settings: OptimiserSettings,
        *,
        accelerator: Accelerator,
        total: int,
        keys: Sequence[str],
        seed: int,
        chunk: int,
        most_scale: float,
    ) -> None:
        self.model = model
        self.objective = objective
        self.optimiser = optimiser
        self.settings = settings
        self.accelerator = accelerator
        self.total = total
        self.keys = keys
        self.seed = seed
        self.chunk = chunk
        self.most_scale = most_scale

    def take(self, number: int, batches: Sequence[Batch]) -> Taken:
        """Take a step, counted from 0, on batches whose gradients are averaged.

        :raises TrainingError: when loss or gradient is no number; then no weight has moved.
        """
        share = rate_at(number, self.total, self.settings.warmup)
        for group in self.optimiser.param_groups:
            group["lr"] = share * group["top_lr"]
        self.optimiser.zero_grad(set_to_none=True)
        self.objective.at_step(number)
        losses = []
        for part, batch in enumerate(batches):
            torch.manual_seed(self._seed_of(number, part))
            with self.accelerator.autocast():
                losses.append(self._gradient(batch, 1 / len(batches)))
        loss = float(torch.stack(losses).mean())
        self._refuse_odd("loss", loss, number, batches)
        gradient = self._gathered_gradient()
        self._refuse_odd("length of the gradient", gradient, number, batches)
        self.optimiser.step()
        self.model.clamp(self.most_scale)
        scale = float(self.model.temperature.scale.detach())
        return Taken(loss=loss, gradient=gradient, scale=scale, rate=share * self.settings.lr)

    def _gradient(self, batch: Batch, weight: float) -> Tensor:
        """Add the gradient of a batch, times ``weight``, and give its loss."""

        def loss(images: Tensor, texts: Tensor) -> Tensor:
            return weight * self.objective(images, texts, batch)

        if not self.chunk:
            value = loss(*self.model.encode(batch.images, batch.texts, batch.mask))
            torch.autograd.backward(value)
            return value.detach() / weight
        device = self.accelerator.device
        return cached_step(*self._chunks(batch), loss, device=device) / weight

    def _chunks(self, batch: Batch) -> tuple[list[Chunk], list[Chunk]]:
        """Cut a batch into pieces that go through the towers one by one."""
        model, size = self.model, self.chunk
        pixels, texts = (torch.split(part, size) for part in (batch.images, batch.texts))
        images: list[Chunk] = []
        if batch.mask is None:
            images += [partial(model.project_images, part) for part in pixels]
            return images, [partial(model.project_texts, part) for part in texts]
        images += [partial(model.encode_images, part) for part in pixels]
        masks = torch.split(batch.mask, size)
        return images, [partial(model.encode_texts, *part) for part in zip(texts, masks, strict=True)]

    def _gathered_gradient(self) -> float:
        """Average the gradients over the processes, clip them, and give how long they were."""
        parameters = list(self.model.trained().values())
        if self.accelerator.num_processes > 1:
            for parameter in parameters:
                if parameter.grad is None:  # another process may have one
                    parameter.grad = torch.zeros_like(parameter)
            average([p.grad for p in parameters if p.grad is not None], self.accelerator)
        length = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self.settings.clip and bool(torch.isfinite(length)):
            torch.nn.utils.clip_grads_with_norm_(parameters, self.settings.clip, length)
        return float(length)

    def _refuse_odd(self, what: str, value: float, number: int, batches: Iterable[Batch]) -> None:
        if value - value == 0:  # neither infinite nor no number
            return
        keys = [self.keys[row] for batch in batches for row in batch.image_rows.tolist()]
        raise TrainingError(
            f"The {what} is {value} at step {number + 1}, on the records {first_few(keys)}; no weight was "
            "moved. Look at these records; a lower optimiser.lr or a longer optimiser.warmup may help, too"
        )

    def _seed_of(self, number: int, part: int) -> int:
        """Give the random state of a part of a step in this process."""
        name = f"{self.seed} {number} {part} {self.accelerator.process_index}"
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])


def average(gradients: Sequence[Tensor], accelerator: Accelerator) -> None:
    """Average tensors over the processes in their places, many in one message."""
    bucket: list[Tensor] = []
    size = 0
    for gradient in [*gradients, None]:
        if gradient is None or size + gradient.nbytes > REDUCED_AT_ONCE:
            if bucket:
                flat = torch.cat([one.flatten() for one in bucket])
                parts = accelerator.reduce(flat, reduction="mean").split([one.numel() for one in bucket])
                for one, part in zip(bucket, parts, strict=True):
                    one.copy_(part.view_as(one))
            bucket, size = [], 0
        if gradient is not None:
            bucket.append(gradient)
            size += gradient.nbytes
