"""Hard negatives from the whole training set: the nearest by the model, but those that may be true.

A candidate that scores nearly as high with an example as its own caption does is likely a true match that
nobody wrote down. So only those count whose score is at most a share of the positive's, as in the mining of
NV-Retriever (Moreira et al. 2024, https://arxiv.org/abs/2407.15831, "TopK-PercPos").
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossmodal.index import FaissIndex
from training.data.examples import Examples, Integers, Ragged
from training.data.plan import NO_OWNER

Vectors = NDArray[np.float32]

_QUERIES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class MiningSettings:
    """How hard negatives are mined.

    ``every``: so many steps; 0: never. ``texts`` and ``images``: how many of each an example gets at most.
    ``share``: of the positive's score, which no negative exceeds. ``depth``: how many of the nearest are
    looked through for them.
    """

    every: int = 0
    texts: int = 1
    images: int = 0
    share: float = 0.95
    depth: int = 256

    def __post_init__(self) -> None:
        for name, least in (("every", 0), ("texts", 0), ("images", 0), ("depth", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {least} or more, not {getattr(self, name)}")
        if not 0 < self.share <= 1:
            raise ValueError(f"share is above 0 and at most 1, not {self.share}")

    def due(self, step: int) -> bool:
        """Say whether to mine before this step of the whole training, which is counted from 0."""
        return self.every > 0 and step > 0 and step % self.every == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HardNegatives:
    """For each of N examples its hardest negatives first, and -1 where there are fewer.

    ``texts``: (N, K) numbers of texts; ``owners``: (N, K) an example each of them is a caption of;
    ``images``: (N, L) rows.
    """

    texts: Integers
    owners: Integers
    images: Integers


def mine(
    examples: Examples, image_embeddings: Vectors, text_embeddings: Vectors, settings: MiningSettings
) -> HardNegatives:
    """Find the hard negatives of each example.

    ``image_embeddings``: (N, D) of the examples; ``text_embeddings``: (T, D) of ``examples.texts``; both
    L2-normalised. The positive of a picture is its best caption, and that of a caption its picture. Of what
    belongs to an example's own group, or has a caption in common with it, nothing is a negative; nor is a
    picture that is too near to any one of the example's captions.
    """
    captions = examples.captions
    by_text = _owners(captions, len(examples.texts))
    pictures, words = image_embeddings[captions.owners], text_embeddings[captions.values]
    scores = np.einsum("cd,cd->c", pictures, words, dtype=np.float64)
    texts = _texts(examples, image_embeddings, text_embeddings, by_text, scores, settings)
    owners = np.full(texts.shape, NO_OWNER)
    owners[texts >= 0] = by_text.values[by_text.starts[texts[texts >= 0]]]
    return HardNegatives(
        texts=texts,
        owners=owners,
        images=_images(examples, image_embeddings, text_embeddings, by_text, scores, settings),
    )


def _texts(
    examples: Examples,
    images: Vectors,
    texts: Vectors,
    by_text: Ragged,
    scores: NDArray[np.float64],
    settings: MiningSettings,
) -> Integers:
    """Give the hard texts of each picture: (N, K)."""
    out = np.full((len(examples), settings.texts), -1, np.int64)
    if not settings.texts:
        return out
    captions_of_groups = _captions_of_groups(examples)
    bound = _bound(np.maximum.reduceat(scores, examples.captions.starts[:-1]), settings.share)
    asked = np.flatnonzero(by_text.lengths)  # a user's own negatives join by themselves
    for row, near, ids in _nearest(images, texts[asked], asked, settings.depth):
        own = captions_of_groups[int(examples.groups[row])]
        hard = ids[(near <= bound[row]) & ~np.isin(ids, own)][: settings.texts]
        out[row, : len(hard)] = hard
    return out


def _images(
    examples: Examples,
    images: Vectors,
    texts: Vectors,
    by_text: Ragged,
    scores: NDArray[np.float64],
    settings: MiningSettings,
) -> Integers:
    """Give the hard pictures of each example's captions: (N, L)."""
    out = np.full((len(examples), settings.images), -1, np.int64)
    if not settings.images:
        return out
    captions = examples.captions
    bound = _bound(scores, settings.share)
    owners, rows = captions.owners, np.arange(len(examples))
    candidates: dict[int, float] = {}
    refused: set[int] = set()
    for place, near, ids in _nearest(texts[captions.values], images, rows, settings.depth):
        row, text = int(owners[place]), int(captions.values[place])
        over = (near > bound[place]) | (examples.groups[ids] == examples.groups[row])
        refused.update(ids[over].tolist(), by_text[text].tolist())
        for image, score in zip(ids[~over].tolist(), near[~over].tolist(), strict=True):
            candidates[image] = max(score, candidates.get(image, score))
        if place + 1 == captions.starts[row + 1]:
            left = [image for image in candidates if image not in refused]
            hard = sorted(left, key=lambda image: (-candidates[image], image))[: settings.images]
            out[row, : len(hard)] = hard
            candidates, refused = {}, set()
    return out


def _nearest(
    queries: Vectors, vectors: Vectors, ids: Integers, depth: int
) -> Iterator[tuple[int, Vectors, Integers]]:
    """Give for each query its number, and the scores and ids of the ``depth`` nearest vectors, in order."""
    index = FaissIndex(vectors.shape[1])
    index.add(ids, vectors)
    for start in range(0, len(queries), _QUERIES):
        found = index.search(queries[start : start + _QUERIES], min(depth, len(index)))
        for number, (scores, near) in enumerate(zip(*found, strict=True), start):
            yield number, scores, near


def _bound(positive: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Give the highest score of a negative, below a positive's also where that is negative itself."""
    return positive - (1 - share) * np.abs(positive)


def _owners(captions: Ragged, texts: int) -> Ragged:
    """Turn the captions of each row into the rows of each text."""
    order = np.argsort(captions.values, kind="stable")
    starts = np.searchsorted(captions.values[order], np.arange(texts + 1))
    return Ragged(captions.owners[order], starts.astype(np.int64))


def _captions_of_groups(examples: Examples) -> dict[int, Integers]:
    """Give the numbers of all captions of each group."""
    order = np.argsort(examples.groups, kind="stable")
    groups, first = np.unique(examples.groups[order], return_index=True)
    rows = np.split(order, first[1:])
    return {group: examples.captions.gather(own)[0] for group, own in zip(groups.tolist(), rows, strict=True)}
