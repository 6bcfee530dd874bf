"""Which examples, with which of their captions, are in which batch: decided by seed, epoch and step alone."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from crossmodal.errors import TrainingError
from training.data.augment import DRAW
from training.data.examples import Examples, Integers, Ragged

NO_OWNER = -1
"""Stands for the example of a text that belongs to none: a user's own negative."""

_ROOM = 4
"""Examples that wait for another batch, in batches; when more do, the longest-waiting share one after all."""

_ORDER, _CAPTIONS, _NEGATIVES = range(3)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSettings:
    """What a batch is made of.

    ``size``: examples in a batch, over all processes together. ``last``: what becomes of the examples that
    do not fill a batch at the end of an epoch. ``captions`` and ``negatives``: how many captions of each
    picture, and of its own negative captions (the column ``negatives``), at most. ``apart``: examples that
    share a caption or a picture go into different batches, as far as that can be done.
    """

    size: int = 256
    last: Literal["drop", "keep"] = "drop"
    captions: int = 1
    negatives: int = 1
    apart: bool = True

    def __post_init__(self) -> None:
        for name, least in (("size", 1), ("captions", 1), ("negatives", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {least} or more, not {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """What one process takes for one step, before anything is loaded.

    ``images``: (N,) rows, the first ``pairs`` of them with captions of theirs, the others as hard negatives.
    ``texts``: (M,) numbers of texts, and ``owners``: (M,) the rows they belong to, or ``NO_OWNER``.
    """

    epoch: int
    step: int
    pairs: int
    images: Integers
    texts: Integers
    owners: Integers


class Negatives(Protocol):
    """Hard negatives of each example: -1 where there are fewer than the rest have."""

    @property
    def texts(self) -> Integers:
        """Numbers of texts: (N, K)."""

    @property
    def owners(self) -> Integers:
        """The rows that those are captions of: (N, K)."""

    @property
    def images(self) -> Integers:
        """Rows of pictures: (N, L)."""


class BatchPlan:
    """The batches of every epoch, for one process of several.

    All processes draw the same batches and each takes its slice. Of a last batch that is kept, as many
    examples are left out as it takes to give all processes equally many.
    """

    def __init__(
        self,
        examples: Examples,
        settings: BatchSettings,
        *,
        seed: int,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        """Plan.

        :raises TrainingError: when a batch is bigger than the data or cannot be shared out evenly.
        """
        if settings.size > len(examples):
            raise TrainingError(
                f"A batch of {settings.size} is asked for, and {examples.spec} has {len(examples)} pictures "
                "with captions to train on. Make the batch smaller"
            )
        if settings.size % processes:
            raise TrainingError(
                f"A batch of {settings.size} cannot be shared out evenly among {processes} processes. "
                f"Give a multiple of {processes}"
            )
        self.examples = examples
        self.settings = settings
        self.seed = seed
        self._process, self._processes = process, processes
        self._marks = _shared_marks(examples) if settings.apart else {}

    @property
    def steps(self) -> int:
        """How many batches an epoch has."""
        whole, rest = divmod(len(self.examples), self.settings.size)
        return whole + (self.settings.last == "keep" and rest >= self._processes)

    def batches(self, epoch: int, start_step: int = 0, negatives: Negatives | None = None) -> Iterator[Draw]:
        """Draw the batches of an epoch, from one of its steps on.

        :param negatives: mined ones, which join the examples they are hard for; they hold for all batches
            drawn from here, so whoever mines new ones begins anew at the next step.
        """
        order = self._order(epoch)
        captions = _shuffled(self.examples.captions, self._chance(epoch, _CAPTIONS))
        own_negatives = _shuffled(self.examples.negatives, self._chance(epoch, _NEGATIVES))
        for step in range(start_step, self.steps):
            rows = order[step * self.settings.size : (step + 1) * self.settings.size]
            share = len(rows) // self._processes
            rows = rows[self._process * share : (self._process + 1) * share]
            texts, places = captions.gather(rows, self.settings.captions)
            strangers, _ = own_negatives.gather(rows, self.settings.negatives)
            owners = np.concatenate([rows[places], np.full(len(strangers), NO_OWNER)])
            draw = Draw(
                epoch=epoch,
                step=step,
                pairs=len(rows),
                images=rows,
                texts=np.concatenate([texts, strangers]),
                owners=owners,
            )
            yield draw if negatives is None else _joined(draw, negatives)

    def _order(self, epoch: int) -> Integers:
        order = self._chance(epoch, _ORDER).permutation(len(self.examples))
        return np.array(list(_apart(order, self.settings.size, self._marks))) if self._marks else order

    def _chance(self, epoch: int, what: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, epoch, DRAW, what])


def _shuffled(lists: Ragged, chance: np.random.Generator) -> Ragged:
    """Shuffle each list in itself."""
    order = np.lexsort((chance.random(len(lists.values)), lists.owners))
    return Ragged(lists.values[order], lists.starts)


def _joined(draw: Draw, negatives: Negatives) -> Draw:
    """Add the hard negatives of a batch's examples, each once and none that is in the batch already."""
    images = negatives.images[draw.images].ravel()
    images = np.setdiff1d(images[images >= 0], draw.images)
    texts, owners = negatives.texts[draw.images].ravel(), negatives.owners[draw.images].ravel()
    fresh = np.flatnonzero((texts >= 0) & ~np.isin(texts, draw.texts))
    _, first = np.unique(texts[fresh], return_index=True)
    fresh = fresh[first]
    return Draw(
        epoch=draw.epoch,
        step=draw.step,
        pairs=draw.pairs,
        images=np.concatenate([draw.images, images]),
        texts=np.concatenate([draw.texts, texts[fresh]]),
        owners=np.concatenate([draw.owners, owners[fresh]]),
    )


def _shared_marks(examples: Examples) -> dict[int, frozenset[int]]:
    """Give, for the rows that share anything with another, what: texts, and groups as numbers below 0."""
    texts, text_rows = examples.captions.values, examples.captions.owners
    marks = np.concatenate([texts, -1 - examples.groups])
    rows = np.concatenate([text_rows, np.arange(len(examples))])
    _, which, times = np.unique(marks, return_inverse=True, return_counts=True)
    shared = times[which] > 1
    gathered: dict[int, set[int]] = {}
    for row, mark in zip(rows[shared].tolist(), marks[shared].tolist(), strict=True):
        gathered.setdefault(row, set()).add(mark)
    return {row: frozenset(own) for row, own in gathered.items()}


def _apart(order: Integers, size: int, marks: dict[int, frozenset[int]]) -> Iterator[int]:
    """Give all rows in an order in which, of each ``size`` of them, no two share a mark, if that can be done.

    A row that would meet its like waits for the next batch. Who waits when the rows end, or when there is no
    room left to wait, is taken all the same.
    """
    none: frozenset[int] = frozenset()
    coming = deque(order.tolist())
    waiting: deque[int] = deque()
    while coming or waiting:
        taken: set[int] = set()
        filled = 0
        still: deque[int] = deque()
        while filled < size and (waiting or coming):
            row = waiting.popleft() if waiting else coming.popleft()
            own = marks.get(row, none)
            if taken.isdisjoint(own) or len(still) >= _ROOM * size:
                taken |= own
                filled += 1
                yield row
            else:
                still.append(row)
        while filled < size and still:
            filled += 1
            yield still.popleft()
        still.extend(waiting)
        waiting = still
