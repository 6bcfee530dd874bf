"""Queues of past embeddings: more to tell the right one from than a batch holds, at hardly any cost."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from crossmodal.errors import TrainingError
from training.losses.base import Relation


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
    """A ring of the last ``size`` embeddings of one kind, without gradient, and the groups they are of."""

    def __init__(self, size: int, dim: int, device: torch.device | None = None) -> None:
        self.size = size
        self._embeddings = torch.zeros((size, dim), device=device)
        self._groups = torch.full((size,), -1, device=device)
        self._pushed = 0

    def __len__(self) -> int:
        return min(self._pushed, self.size)

    @property
    def embeddings(self) -> Tensor:
        """What is remembered: float32 (Q, D), in no particular order."""
        return self._embeddings[: len(self)]

    @property
    def groups(self) -> Tensor:
        """The groups they are of: int64 (Q,)."""
        return self._groups[: len(self)]

    @torch.no_grad()
    def push(self, embeddings: Tensor, groups: Tensor) -> None:
        """Remember embeddings (B, D) of groups (B,) in the place of the oldest."""
        skipped = max(0, len(groups) - self.size)
        places = torch.arange(self._pushed + skipped, self._pushed + len(groups), device=groups.device)
        self._embeddings[places % self.size] = embeddings[skipped:].to(self._embeddings.dtype)
        self._groups[places % self.size] = groups[skipped:]
        self._pushed += len(groups)

    def state(self) -> dict[str, Tensor]:
        """Give all that is remembered, as tensors."""
        return {
            "embeddings": self.embeddings.clone(),
            "groups": self.groups.clone(),
            "pushed": torch.tensor(self._pushed),
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back what ``state`` gave.

        :raises TrainingError: when it is of a queue of another shape.
        """
        embeddings, pushed = state["embeddings"], int(state["pushed"])
        expected = (min(pushed, self.size), self._embeddings.shape[1])
        if embeddings.shape != expected:
            raise TrainingError(
                f"The saved queue holds {tuple(embeddings.shape)} numbers, and {expected} are expected; "
                "resume with the recipe that the run began with"
            )
        self._embeddings[: len(embeddings)] = embeddings.to(self._embeddings)
        self._groups[: len(embeddings)] = state["groups"].to(self._groups)
        self._pushed = pushed


class PairQueues:
    """Past pictures and past texts, as cross-batch memory (Wang et al. 2020, https://arxiv.org/abs/1912.06798).

    There are two, for pictures are only ever told from texts. What is remembered answers by its group and
    never asks: the pictures of a batch look for their texts among new and past ones, and its texts likewise.
    """

    def __init__(self, settings: QueueSettings, dim: int, device: torch.device | None = None) -> None:
        self.settings = settings
        self.images = Queue(settings.size, dim, device)
        self.texts = Queue(settings.size, dim, device)

    def relate(
        self,
        images: Tensor,
        texts: Tensor,
        image_groups: Tensor,
        text_groups: Tensor,
        *,
        step: int,
        ignored: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Relation]:
        """Put what is remembered behind a batch's embeddings (N, D) and (M, D), and say who belongs together.

        :param step: of training, counted from 0; before ``start`` nothing is added.
        :param ignored: bool (N, M), of the batch.
        """
        if step < self.settings.start:
            return images, texts, Relation.from_groups(image_groups, text_groups, ignored)
        relation = Relation.from_groups(
            torch.cat([image_groups, self.images.groups]),
            torch.cat([text_groups, self.texts.groups]),
            None if ignored is None else F.pad(ignored, (0, len(self.texts), 0, len(self.images))),
        )
        return (
            torch.cat([images, self.images.embeddings]),
            torch.cat([texts, self.texts.embeddings]),
            replace(relation, asking_images=len(images), asking_texts=len(texts)),
        )

    def push(self, images: Tensor, texts: Tensor, image_groups: Tensor, text_groups: Tensor) -> None:
        """Remember a batch, once its loss is computed."""
        self.images.push(images, image_groups)
        self.texts.push(texts, text_groups)

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
