"""Queues of past embeddings: more to tell the right one from than a batch holds, at hardly any cost."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from crossmodal.errors import TrainingError
from training.losses.base import Relation

Origins = tuple[Tensor, Tensor, Tensor]
"""Where a batch comes from: rows of its N pictures, rows of its M texts, and numbers of its texts; int64."""

Mask = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From origins to the pairs that are ignored, bool (N, M): ``IgnoredPairs.mask``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    """How much is remembered.

    ``size``: how many past pictures, and as many texts; 0: none. ``start``: the step from which they answer,
    for embeddings move fast at first, and old ones mislead.
    """

    size: int = 0
    start: int = 0

    def __post_init__(self) -> None:
        for name in ("size", "start"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is 0 or more, not {getattr(self, name)}")


class Queue:
    """A ring of the last ``size`` embeddings of one kind, without gradient, and what they are.

    :param labels: how many numbers each has; the first is its group.
    """

    def __init__(self, size: int, dim: int, device: torch.device | None = None, *, labels: int = 1) -> None:
        self.size = size
        self._embeddings = torch.zeros((size, dim), device=device)
        self._labels = torch.full((size, labels), -1, device=device)
        self._pushed = 0

    def __len__(self) -> int:
        return min(self._pushed, self.size)

    @property
    def embeddings(self) -> Tensor:
        """What is remembered: float32 (Q, D), in no particular order."""
        return self._embeddings[: len(self)]

    @property
    def labels(self) -> tuple[Tensor, ...]:
        """The numbers they have, as they were pushed: int64, (Q,) each."""
        return self._labels[: len(self)].unbind(dim=1)

    @property
    def groups(self) -> Tensor:
        """The groups they are of: int64 (Q,)."""
        return self.labels[0]

    @torch.no_grad()
    def push(self, embeddings: Tensor, *labels: Tensor) -> None:
        """Remember embeddings (B, D) and their numbers, (B,) each, in the place of the oldest."""
        count = len(embeddings)
        skipped = max(0, count - self.size)
        places = torch.arange(self._pushed + skipped, self._pushed + count, device=embeddings.device)
        self._embeddings[places % self.size] = embeddings[skipped:].to(self._embeddings.dtype)
        self._labels[places % self.size] = torch.stack(labels, dim=1)[skipped:]
        self._pushed += count

    def state(self) -> dict[str, Tensor]:
        """Give all that is remembered, as tensors."""
        return {
            "embeddings": self.embeddings.clone(),
            "labels": self._labels[: len(self)].clone(),
            "pushed": torch.tensor(self._pushed),
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back what ``state`` gave.

        :raises TrainingError: when it is of a queue of another shape.
        """
        pushed = int(state["pushed"])
        for name, kept in (("embeddings", self._embeddings), ("labels", self._labels)):
            expected = (min(pushed, self.size), kept.shape[1])
            if state[name].shape != expected:
                raise TrainingError(
                    f"The saved queue has {name} of {tuple(state[name].shape)}, and {expected} are expected; "
                    "resume with the recipe that the run began with"
                )
            kept[: expected[0]] = state[name].to(kept)
        self._pushed = pushed


class PairQueues:
    """Past pictures and past texts, as cross-batch memory (Wang et al. 2020, https://arxiv.org/abs/1912.06798).

    There are two, for pictures are only ever told from texts. What is remembered answers by its group and
    never asks: the pictures of a batch look for their texts among new and past ones, and its texts likewise.
    So memory and time grow with the size of the queues, not with its square.

    :param mask: says which pairs of new and past are ignored; all origins are remembered for it. Without
        one, none is.
    """

    def __init__(
        self,
        settings: QueueSettings,
        dim: int,
        device: torch.device | None = None,
        *,
        mask: Mask | None = None,
    ) -> None:
        self.settings = settings
        self.images = Queue(settings.size, dim, device, labels=2 if mask else 1)
        self.texts = Queue(settings.size, dim, device, labels=3 if mask else 1)
        self._mask = mask

    def relate(
        self,
        images: Tensor,
        texts: Tensor,
        image_groups: Tensor,
        text_groups: Tensor,
        *,
        step: int,
        ignored: Tensor | None = None,
        origins: Origins | None = None,
    ) -> tuple[Tensor, Tensor, Relation]:
        """Put what is remembered behind a batch's embeddings (N, D) and (M, D), and say who belongs together.

        :param step: of training, counted from 0; before ``start`` nothing is added.
        :param ignored: bool (N, M), of the batch.
        :param origins: of the batch; a ``mask`` needs them.
        """
        relation = Relation.from_groups(image_groups, text_groups, ignored)
        if step < self.settings.start:
            return images, texts, relation
        past_texts, past_images = self._ignored(origins)
        relation = replace(
            relation,
            past_texts=Relation.from_groups(image_groups, self.texts.groups, past_texts),
            past_images=Relation.from_groups(self.images.groups, text_groups, past_images),
        )
        return (
            torch.cat([images, self.images.embeddings]),
            torch.cat([texts, self.texts.embeddings]),
            relation,
        )

    def _ignored(self, origins: Origins | None) -> tuple[Tensor | None, Tensor | None]:
        """Say what is ignored of past texts (N, Q), and of past pictures (Q, M)."""
        if self._mask is None:
            return None, None
        image_rows, text_rows, text_numbers = _known(origins)
        _, past_image_rows = self.images.labels
        _, past_text_rows, past_text_numbers = self.texts.labels
        return (
            self._mask(image_rows, past_text_rows, past_text_numbers),
            self._mask(past_image_rows, text_rows, text_numbers),
        )

    def push(
        self,
        images: Tensor,
        texts: Tensor,
        image_groups: Tensor,
        text_groups: Tensor,
        *,
        origins: Origins | None = None,
    ) -> None:
        """Remember a batch, once its loss is computed; a ``mask`` needs the batch's ``origins``."""
        if self._mask is None:
            self.images.push(images, image_groups)
            self.texts.push(texts, text_groups)
        else:
            image_rows, text_rows, text_numbers = _known(origins)
            self.images.push(images, image_groups, image_rows)
            self.texts.push(texts, text_groups, text_rows, text_numbers)

    def state(self) -> dict[str, Tensor]:
        """Give all that is remembered, as tensors."""
        return {
            f"{side}.{name}": tensor
            for side, queue in (("images", self.images), ("texts", self.texts))
            for name, tensor in queue.state().items()
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back what ``state`` gave.

        :raises TrainingError: when it is of queues of another shape.
        """
        for side, queue in (("images.", self.images), ("texts.", self.texts)):
            queue.load_state({k.removeprefix(side): t for k, t in state.items() if k.startswith(side)})


def _known(origins: Origins | None) -> Origins:
    if origins is None:
        raise ValueError(
            "These queues have a mask, so relate and push want the origins of the batch; got None"
        )
    return origins
