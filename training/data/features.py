"""What frozen towers make of a data set, made once: its texts, and one or more views of its pictures."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crossmodal.encoders.base import TEXTS_AT_ONCE, Embeddings, Pixels
from crossmodal.encoders.blueprint import Blueprint, TwinModel
from crossmodal.encoders.preprocessing import Preprocess
from crossmodal.errors import CrossmodalError, TrainingError
from crossmodal.machine import cache_root, usable_processors
from crossmodal.pipeline import content_digest
from training.data.augment import PICTURE, AugmentSettings, augment_image, chance_of
from training.data.examples import Examples
from training.data.feature_cache import Count, FeatureCache, Make, key_of
from training.data.frozen import FrozenSide, frozen_side
from training.data.looks import in_threads, reason_of

_BATCH = 64
"""Pictures that are decoded while the tower works on as many others."""

DTYPES = {"float16": torch.float16, "float32": torch.float32}

Told = Callable[[str, int, int], None]
"""Called with what is being made ("pictures" or "texts"), how many there are, and how many there will be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSettings:
    """How features are kept: in which ``dtype``, and in how many ``views`` of each picture.

    The first view is the picture itself; the others are augmented.
    """

    dtype: Literal["float16", "float32"] = "float16"
    views: int = 1

    def __post_init__(self) -> None:
        if self.views < 1:
            raise ValueError(f"views is 1 or more, not {self.views}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Features of N examples in V views, (N, V, ...), and of their T texts: (T, ...).

    ``examples`` are those whose pictures could be decoded; ``unreadable`` holds keys and reasons of others.
    """

    examples: Examples
    images: Tensor
    texts: Tensor
    unreadable: tuple[tuple[str, str], ...]


def features_of(
    examples: Examples,
    model: TwinModel,
    blueprint: Blueprint,
    *,
    settings: FeatureSettings | None = None,
    augment: AugmentSettings | None = None,
    seed: int = 0,
    folder: Path | None = None,
    told: Told | None = None,
) -> Features:
    """Run both towers of a model over examples, or take what the cache has of them.

    :param folder: of the cache; this machine's where left out.
    :raises TrainingError: when the settings ask for what cannot be had, no picture can be read, or what the
        towers make cannot be kept.
    """
    settings, augment = settings or FeatureSettings(), augment or AugmentSettings()
    if settings.views > 1 and not augment.changes_pictures:
        raise TrainingError(
            f"{settings.views} views of each picture are asked for, and no augmentation makes them differ. "
            "Set augment.crop or augment.policy, or features.views to 1"
        )
    if augment.changes_texts:
        raise TrainingError(
            "Captions are to be changed by chance, but a frozen text tower reads them once. Leave out "
            "augment.word_dropout and augment.templates, or take a recipe that runs the text tower"
        )
    root = folder or cache_root() / "features"
    images = frozen_side(model, blueprint, "image")
    texts = frozen_side(model, blueprint, "text")
    sights = _Sights(examples, blueprint.preprocessing, augment, seed, settings.views)
    seen = _cache(root, images, settings).rows(
        sights.keys(), sights.through(images), _telling(told, "pictures")
    )
    good = [row for row in range(len(examples)) if row not in sights.failures]
    if not good:
        raise TrainingError(f"No picture of {examples.spec} can be read; the first: {sights.failures[0]}")
    views = seen.view(len(examples), settings.views, *images.shape)
    return Features(
        examples=examples.take(good),
        images=views if len(good) == len(examples) else views[good],
        texts=_read_texts(examples, texts, blueprint, _cache(root, texts, settings), _telling(told, "texts")),
        unreadable=tuple((examples.keys[row], reason) for row, reason in sorted(sights.failures.items())),
    )


class _Sights:
    """Every view of every picture, by its place: row by row, the plain view first."""

    def __init__(
        self, examples: Examples, preprocess: Preprocess, augment: AugmentSettings, seed: int, views: int
    ) -> None:
        self.failures: dict[int, str] = {}
        self._examples = examples
        self._preprocess = preprocess
        self._augment = augment
        self._seed = seed
        self._views = views
        self._digests = list(in_threads(self._digest, range(len(examples))))

    def keys(self) -> list[bytes]:
        """Give for each view what decides it: the picture's bytes, and how they are changed."""
        how = self._augment.of_pictures()
        changed = [key_of(how, self._seed, view) if view else b"" for view in range(self._views)]
        return [key_of(digest, change) for digest in self._digests for change in changed]

    def through(self, side: FrozenSide) -> Make:
        """Give what makes the features of some places, decoding a batch ahead of the tower."""

        def make(places: Sequence[int]) -> tuple[Embeddings, NDArray[np.bool_]]:
            out = np.zeros((len(places), *side.shape), np.float32)
            good = np.zeros(len(places), np.bool_)
            start = 0
            for pixels in self._decoded(places):
                whole = [row for row, one in enumerate(pixels, start) if one is not None]
                if whole:
                    out[whole] = side.images(np.stack([one for one in pixels if one is not None]))
                    good[whole] = True
                start += len(pixels)
            return out, good

        return make

    def _decoded(self, places: Sequence[int]) -> Iterator[list[Pixels | None]]:
        batches = [places[start : start + _BATCH] for start in range(0, len(places), _BATCH)]
        with ThreadPoolExecutor(usable_processors(), thread_name_prefix="view") as pool:
            ahead: deque[list[Future[Pixels | None]]] = deque()
            for batch in batches:
                ahead.append([pool.submit(self._view, place) for place in batch])
                if len(ahead) > 1:
                    yield [future.result() for future in ahead.popleft()]
            for futures in ahead:
                yield [future.result() for future in futures]

    def _view(self, place: int) -> Pixels | None:
        row, view = divmod(place, self._views)
        if row in self.failures:
            return None
        try:
            picture = self._examples.picture(row)
            if view == 0:
                return self._preprocess(picture)
            chance = chance_of(self._seed, view, int(self._digests[row], 16), PICTURE)
            return augment_image(picture, self._preprocess, self._augment, chance)
        except (CrossmodalError, OSError) as error:
            self.failures[row] = reason_of(error)
            return None

    def _digest(self, row: int) -> str:
        try:
            return content_digest(self._examples.picture(row))
        except (CrossmodalError, OSError) as error:
            self.failures[row] = reason_of(error)
            return f"unread {row}"


def _read_texts(
    examples: Examples, side: FrozenSide, blueprint: Blueprint, cache: FeatureCache, told: Count | None
) -> Tensor:
    """Give the features of all texts of examples, by their tokens."""
    tokens = [
        ids
        for start in range(0, len(examples.texts), TEXTS_AT_ONCE)
        for ids in blueprint.tokenizer(examples.texts[start : start + TEXTS_AT_ONCE])
    ]

    def make(places: Sequence[int]) -> tuple[Embeddings, NDArray[np.bool_]]:
        return side.texts([tokens[place] for place in places]), np.ones(len(places), np.bool_)

    return cache.rows([key_of(tuple(ids)) for ids in tokens], make, told)


def _cache(root: Path, side: FrozenSide, settings: FeatureSettings) -> FeatureCache:
    return FeatureCache(root / f"{side.identity[:32]}-{settings.dtype}", side.shape, DTYPES[settings.dtype])


def _telling(told: Told | None, what: str) -> Count | None:
    return None if told is None else lambda done, total: told(what, done, total)
