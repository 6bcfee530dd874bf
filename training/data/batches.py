"""Batches of tensors: pictures decoded ahead in threads, or features that were made once."""

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from crossmodal.encoders.base import Pixels
from crossmodal.encoders.blueprint import Tokenize
from crossmodal.encoders.preprocessing import Preprocess
from crossmodal.errors import CrossmodalError, TrainingError
from crossmodal.machine import usable_processors
from training.data.augment import (
    PICTURE,
    REPLACEMENT,
    TEXT,
    AugmentSettings,
    augment_image,
    augment_text,
    chance_of,
)
from training.data.examples import Examples, Integers
from training.data.looks import reason_of
from training.data.plan import NO_OWNER, Draw

AHEAD = 2
"""Batches that are loaded before they are wanted."""

_REPLACEMENTS = 100
"""Pictures tried in place of a broken one before training gives up."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """N pictures and M texts on the CPU, and what belongs together.

    ``images``: uint8 pixels (N, H, W, 3), or features. ``texts``: int64 token ids (M, T) with a ``mask``
    (M, T), 0 behind the end of a text; or features without one. ``image_groups``: (N,) and ``text_groups``:
    (M,), int64; equal ones are positives, and a text of none has -1. ``image_rows``: (N,) and ``text_rows``:
    (M,) are rows of the examples, -1 for a text of none; ``text_numbers``: (M,), of ``Examples.texts``.
    """

    epoch: int
    step: int
    images: Tensor
    texts: Tensor
    mask: Tensor | None
    image_groups: Tensor
    text_groups: Tensor
    image_rows: Tensor
    text_rows: Tensor
    text_numbers: Tensor


class BatchLoader:
    """Loads the batches of a plan; a picture that breaks in mid-training is replaced by another example.

    Everything in a batch depends on the seed, its epoch and its step alone. ``replaced`` lists rows whose
    picture could not be read any more, with the reason.
    """

    def __init__(
        self,
        examples: Examples,
        preprocess: Preprocess,
        tokenizer: Tokenize,
        *,
        augment: AugmentSettings | None = None,
        seed: int = 0,
        workers: int | None = None,
    ) -> None:
        self.replaced: dict[int, str] = {}
        self._examples = examples
        self._preprocess = preprocess
        self._tokenizer = tokenizer
        self._augment = augment or AugmentSettings()
        self._seed = seed
        self._workers = workers or usable_processors()

    def load(self, draws: Iterable[Draw]) -> Iterator[Batch]:
        """Load batches in order, ``AHEAD`` of them before they are asked for.

        :raises TrainingError: when one picture after another cannot be read any more.
        """
        waiting: deque[tuple[Draw, list[Future[Pixels | str]]]] = deque()
        with ThreadPoolExecutor(self._workers, thread_name_prefix="batch") as pool:
            try:
                for draw in draws:
                    waiting.append((draw, [pool.submit(self._see, row, draw.epoch) for row in draw.images]))
                    if len(waiting) > AHEAD:
                        yield self._batch(*waiting.popleft())
                while waiting:
                    yield self._batch(*waiting.popleft())
            finally:
                for _, futures in waiting:
                    for future in futures:
                        future.cancel()

    def _see(self, row: int, epoch: int) -> Pixels | str:
        """Give the pixels of a row's picture in this epoch, or why there are none."""
        row = int(row)
        try:
            chance = chance_of(self._seed, epoch, row, PICTURE)
            return augment_image(self._examples.picture(row), self._preprocess, self._augment, chance)
        except (CrossmodalError, OSError) as error:
            return reason_of(error)

    def _batch(self, draw: Draw, futures: Sequence[Future[Pixels | str]]) -> Batch:
        seen = [future.result() for future in futures]
        for place, (row, pixels) in enumerate(zip(draw.images.tolist(), seen, strict=True)):
            if isinstance(pixels, str):
                self._note(row, pixels)
                if place < draw.pairs:
                    draw, seen[place] = self._with_another(draw, place)
        whole = [place for place, pixels in enumerate(seen) if not isinstance(pixels, str)]
        ids, mask = self._tokens(draw)
        return _gathered(
            replace(draw, images=draw.images[whole]),
            self._examples,
            torch.from_numpy(np.stack([seen[place] for place in whole])),
            ids,
            mask,
        )

    def _with_another(self, draw: Draw, place: int) -> tuple[Draw, Pixels]:
        """Put another example, its captions too, in the place of one whose picture is broken."""
        broken = int(draw.images[place])
        chance = chance_of(self._seed, draw.epoch, broken, REPLACEMENT)
        for _ in range(_REPLACEMENTS):
            row = int(chance.integers(len(self._examples)))
            if row in draw.images or row in self.replaced:
                continue
            pixels = self._see(row, draw.epoch)
            if isinstance(pixels, str):
                self._note(row, pixels)
                continue
            images = draw.images.copy()
            images[place] = row
            own = self._examples.captions[row]
            wanted = min(len(own), max(1, int((draw.owners == broken).sum())))
            stay = draw.owners != broken
            drawn = chance.permutation(own)[:wanted]
            texts = np.concatenate([draw.texts[stay], drawn])
            owners = np.concatenate([draw.owners[stay], np.full(wanted, row)])
            return replace(draw, images=images, texts=texts, owners=owners), pixels
        raise TrainingError(
            f"{len(self.replaced)} pictures of {self._examples.spec} cannot be read any more, and none was "
            f"found in the place of {self._examples.keys[broken]} ({self.replaced[broken]}). "
            "See whether their disk is still there, and resume"
        )

    def _note(self, row: int, reason: str) -> None:
        if row not in self.replaced:
            self.replaced[row] = reason
            _log.warning("%s cannot be read any more, another is taken: %s", self._examples.keys[row], reason)

    def _tokens(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """Give token ids (M, T), zeros behind each text's end, and where the texts are (M, T)."""
        texts = [
            augment_text(
                self._examples.texts[text], self._augment, chance_of(self._seed, draw.epoch, text, TEXT)
            )
            for text in draw.texts.tolist()
        ]
        tokens = self._tokenizer(texts)
        ids = torch.zeros((len(tokens), max(map(len, tokens))), dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, own in enumerate(tokens):
            ids[row, : len(own)] = torch.tensor(own)
            mask[row, : len(own)] = 1
        return ids, mask


class FeatureLoader:
    """Gives the batches of a plan as features that frozen towers made once.

    ``images``: (N, V, ...), in V views of each row, of which each epoch draws one; ``texts``: (T, ...), by
    the numbers of ``Examples.texts``.
    """

    def __init__(self, examples: Examples, images: Tensor, texts: Tensor, *, seed: int = 0) -> None:
        self._examples = examples
        self._views = images.shape[1]
        self._images, self._texts = images.flatten(0, 1), texts
        self._seed = seed

    def load(self, draws: Iterable[Draw]) -> Iterator[Batch]:
        """Take each batch's features, as float32."""
        for draw in draws:
            chance = np.random.default_rng([self._seed, draw.epoch, PICTURE])
            views = chance.integers(self._views, size=len(self._examples))
            seen = torch.from_numpy(draw.images * self._views + views[draw.images])
            images = self._images.index_select(0, seen).float()
            texts = self._texts.index_select(0, torch.from_numpy(draw.texts)).float()
            yield _gathered(draw, self._examples, images, texts, None)


def _gathered(draw: Draw, examples: Examples, images: Tensor, texts: Tensor, mask: Tensor | None) -> Batch:
    """Put a batch together with what belongs to what."""
    owners = draw.owners
    groups = np.where(owners == NO_OWNER, NO_OWNER, examples.groups[owners])
    return Batch(
        epoch=draw.epoch,
        step=draw.step,
        images=images,
        texts=texts,
        mask=mask,
        image_groups=_tensor(examples.groups[draw.images]),
        text_groups=_tensor(groups),
        image_rows=_tensor(draw.images),
        text_rows=_tensor(owners),
        text_numbers=_tensor(draw.texts),
    )


def _tensor(numbers: Integers) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(numbers, np.int64))
