"""Retrieval both ways, measured exactly: where the right pictures and captions rank.

Scores are inner products, rounded once, to float32. Ties are pessimistic: whatever is irrelevant and scores
as high as a relevant item ranks before it. The (N, M) matrix of scores is never held, only blocks of it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crossmodal.errors import EvaluationError, first_few

Embeddings = NDArray[np.floating[Any]]
Integers = NDArray[np.int64]

# A block of scores is 64 MB in float64; counts over one fit uint16.
_IMAGES_PER_BLOCK = 1024
_TEXTS_PER_BLOCK = 8192

_NDCG_DEPTH = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectionReport:
    """One direction's measures, each the mean over its queries (``median_rank``: the median).

    ``recall``: for each k, the share of queries with a relevant item among the first k. Ranks are those of
    the first relevant item, from 1; ``mrr`` is the mean of one over it. ``map_at_r`` and ``r_precision`` look
    at the first R, R being the number of relevant items, and divide by R (Musgrave et al., "A Metric Learning
    Reality Check", ECCV 2020). ``ndcg_at_10`` has a gain of 1 for each relevant item.
    """

    queries: int
    recall: dict[int, float]
    median_rank: float
    mean_rank: float
    mrr: float
    map_at_r: float
    r_precision: float
    ndcg_at_10: float

    def to_dict(self) -> dict[str, float]:
        """Give the measures for JSON, recalls as ``recall@k``; all shares are fractions."""
        return {f"recall@{k}": share for k, share in self.recall.items()} | {
            "median_rank": self.median_rank,
            "mean_rank": self.mean_rank,
            "mrr": self.mrr,
            "map@r": self.map_at_r,
            "r_precision": self.r_precision,
            "ndcg@10": self.ndcg_at_10,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalReport:
    """Both directions, and what they were measured on.

    The ``images_without_text`` can be found by no caption of theirs: they are in the gallery of
    ``text_to_image``, where they distract, and are no queries of ``image_to_text``.
    """

    images: int
    texts: int
    images_without_text: int
    text_to_image: DirectionReport
    image_to_text: DirectionReport

    @property
    def rsum(self) -> float:
        """The sum of all recalls of both directions, in percent."""
        return 100 * sum([*self.text_to_image.recall.values(), *self.image_to_text.recall.values()])

    def to_dict(self) -> dict[str, Any]:
        """Give the measures for JSON: ``text_to_image``, ``image_to_text`` and ``rsum``."""
        return {
            "text_to_image": self.text_to_image.to_dict(),
            "image_to_text": self.image_to_text.to_dict(),
            "rsum": self.rsum,
        }


def evaluate_retrieval(
    image_embeddings: ArrayLike,
    text_embeddings: ArrayLike,
    image_of_text: ArrayLike,
    ks: Sequence[int] = (1, 5, 10),
) -> RetrievalReport:
    """Measure how well texts find their image, and images their texts.

    ``image_embeddings``: (N, D) and ``text_embeddings``: (M, D), floats, L2-normalised for cosine.
    ``image_of_text``: (M,), the row of each text's image. A text has one image; an image may have any number
    of texts, or none. Each image is measured against all texts and each text against all images.

    :raises EvaluationError: when shapes differ, values are not finite, or a text names an image that is not
        there; it names the rows.
    """
    images = _as_embeddings(image_embeddings, "image")
    texts = _as_embeddings(text_embeddings, "text")
    if images.shape[1] != texts.shape[1]:
        raise EvaluationError(
            f"Image embeddings have {images.shape[1]} dimensions and text embeddings {texts.shape[1]};"
            " both must come from the same encoder."
        )
    owner = _as_owners(image_of_text, len(images), len(texts))
    if not ks or min(ks) < 1:
        raise EvaluationError(f"Recall is asked for at {tuple(ks)}; give ranks of 1 or more.")
    images_ahead, texts_ahead = _irrelevant_ahead(images, texts, owner)
    return RetrievalReport(
        images=len(images),
        texts=len(texts),
        images_without_text=len(images) - len(np.unique(owner)),
        text_to_image=_measure(np.arange(len(texts)), images_ahead, ks),
        image_to_text=_measure(owner, texts_ahead, ks),
    )


def _irrelevant_ahead(images: Embeddings, texts: Embeddings, owner: Integers) -> tuple[Integers, Integers]:
    """Count for each text what ranks before its pair, and is irrelevant.

    Gives two counts (M,): other images that score as high with the text as its own image does; and texts of
    other images that score as high with its image as the text does.
    """
    pair_scores = _pair_scores(images, texts, owner)
    by_image = np.argsort(owner, kind="stable")
    images_ahead = np.zeros(len(texts), np.int64)
    texts_ahead = np.zeros(len(texts), np.int64)
    for rows in _blocks(len(images), _IMAGES_PER_BLOCK):
        wide_images = images[rows].astype(np.float64)
        first, last = np.searchsorted(owner[by_image], [rows.start, rows.stop])
        texts_of_rows = by_image[first:last]
        for columns in _blocks(len(texts), _TEXTS_PER_BLOCK):
            # Summed in float64 and then rounded, so that equal embeddings tie: a float32 product
            # may differ in its last digits between equal rows.
            scores = (wide_images @ texts[columns].astype(np.float64).T).astype(np.float32)
            inside = texts_of_rows[(texts_of_rows >= columns.start) & (texts_of_rows < columns.stop)]
            scores[owner[inside] - rows.start, inside - columns.start] = -np.inf
            as_high = (scores >= pair_scores[columns]).view(np.uint8)
            images_ahead[columns] += np.add.reduce(as_high, axis=0, dtype=np.uint16)
            for text in texts_of_rows:
                row = scores[owner[text] - rows.start]
                texts_ahead[text] += np.count_nonzero(row >= pair_scores[text])
    return images_ahead, texts_ahead


def _pair_scores(images: Embeddings, texts: Embeddings, owner: Integers) -> NDArray[np.float32]:
    """Give the score of each text with its own image: (M,)."""
    scores = np.empty(len(texts), np.float32)
    for rows in _blocks(len(texts), _TEXTS_PER_BLOCK):
        own = images[owner[rows]].astype(np.float64)
        scores[rows] = np.einsum("md,md->m", own, texts[rows].astype(np.float64))
    return scores


def _measure(query: Integers, ahead: Integers, ks: Iterable[int]) -> DirectionReport:
    """Measure one direction from its relevant pairs.

    ``query``: (P,), the query each pair belongs to. ``ahead``: (P,), how many irrelevant items rank before
    it. The higher a pair's score, the fewer are ahead, so these counts order a query's pairs as scores would.
    """
    order = np.lexsort((ahead, query))
    _, start, relevant = np.unique(query[order], return_index=True, return_counts=True)
    place = np.arange(len(order)) - np.repeat(start, relevant) + 1
    rank = ahead[order] + place
    first = rank[start]
    within_r = rank <= np.repeat(relevant, relevant)
    gain = np.where(rank <= _NDCG_DEPTH, 1 / np.log2(rank + 1), 0)
    ideal = np.cumsum(1 / np.log2(np.arange(2, _NDCG_DEPTH + 2)))[np.minimum(relevant, _NDCG_DEPTH) - 1]
    return DirectionReport(
        queries=len(start),
        recall={k: float(np.mean(first <= k)) for k in ks},
        median_rank=float(np.median(first)),
        mean_rank=float(np.mean(first)),
        mrr=float(np.mean(1 / first)),
        map_at_r=float(np.mean(np.add.reduceat(np.where(within_r, place / rank, 0), start) / relevant)),
        r_precision=float(np.mean(np.add.reduceat(within_r, start, dtype=np.int64) / relevant)),
        ndcg_at_10=float(np.mean(np.add.reduceat(gain, start) / ideal)),
    )


def _as_embeddings(embeddings: ArrayLike, noun: str) -> Embeddings:
    """Give embeddings as they are, when they are floats (N, D), at least one, and finite."""
    array = np.asarray(embeddings)
    if array.ndim != 2 or 0 in array.shape or not np.issubdtype(array.dtype, np.floating):
        raise EvaluationError(
            f"{noun.capitalize()} embeddings came as {array.dtype} {array.shape};"
            " give floats of shape (rows, dimensions), one row at least."
        )
    bad = np.concatenate(
        [~np.isfinite(array[rows]).all(axis=1) for rows in _blocks(len(array), _TEXTS_PER_BLOCK)]
    )
    _refuse(np.flatnonzero(bad), f"{noun} embeddings hold NaN or infinity", "Encode their inputs again.")
    return array


def _as_owners(image_of_text: ArrayLike, images: int, texts: int) -> Integers:
    """Give each text's image as int64 (M,), when all are there."""
    array = np.asarray(image_of_text)
    if array.shape != (texts,) or not np.issubdtype(array.dtype, np.integer):
        raise EvaluationError(
            f"image_of_text came as {array.dtype} {array.shape}; give an integer for each of {texts} texts."
        )
    outside = np.flatnonzero((array < 0) | (array >= images))
    _refuse(outside, f"texts name an image outside 0 to {images - 1}", "Correct image_of_text.")
    return array.astype(np.int64)


def _refuse(rows: NDArray[np.intp], fault: str, remedy: str) -> None:
    """Raise when there are such rows; name the first ones."""
    if len(rows):
        raise EvaluationError(f"{len(rows)} {fault}: rows {first_few(rows)}. {remedy}")


def _blocks(length: int, size: int) -> Iterator[slice]:
    """Cut ``range(length)`` into slices of ``size`` at most."""
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))
