"""Retrieval both ways, measured exactly: where the right pictures and captions rank.

Scores are inner products, rounded once, to float32. Ties are pessimistic: whatever is irrelevant and scores
as high as a relevant item ranks before it. The (N, M) matrix of scores is never held, only blocks of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crossmodal.errors import EvaluationError, first_few
from crossmodal.metrics.counting import Embeddings, Integers, blocks, irrelevant_ahead
from crossmodal.metrics.measures import DirectionReport, measure_pairs

ROWS_AT_ONCE = 8192


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
    images, texts = checked_embeddings(image_embeddings, text_embeddings)
    owner = checked_owners(image_of_text, len(images), len(texts))
    check_ranks(ks)
    images_ahead, texts_ahead = irrelevant_ahead(images, texts, owner)
    return RetrievalReport(
        images=len(images),
        texts=len(texts),
        images_without_text=len(images) - len(np.unique(owner)),
        text_to_image=measure_pairs(np.arange(len(texts)), images_ahead, ks),
        image_to_text=measure_pairs(owner, texts_ahead, ks),
    )


def checked_embeddings(
    image_embeddings: ArrayLike, text_embeddings: ArrayLike
) -> tuple[Embeddings, Embeddings]:
    """Give both as they are, when they can be measured against each other.

    :raises EvaluationError: when they cannot; it names the rows at fault.
    """
    images = _as_embeddings(image_embeddings, "image")
    texts = _as_embeddings(text_embeddings, "text")
    if images.shape[1] != texts.shape[1]:
        raise EvaluationError(
            f"Image embeddings have {images.shape[1]} dimensions and text embeddings {texts.shape[1]};"
            " both must come from the same encoder."
        )
    return images, texts


def check_ranks(ks: Sequence[int]) -> None:
    """Refuse ranks that no recall can be given at.

    :raises EvaluationError: so.
    """
    if not ks or min(ks) < 1:
        raise EvaluationError(f"Recall is asked for at {tuple(ks)}; give ranks of 1 or more.")


def _as_embeddings(embeddings: ArrayLike, noun: str) -> Embeddings:
    """Give embeddings as they are, when they are floats (N, D), at least one, and finite."""
    array = np.asarray(embeddings)
    if array.ndim != 2 or 0 in array.shape or not np.issubdtype(array.dtype, np.floating):
        raise EvaluationError(
            f"{noun.capitalize()} embeddings came as {array.dtype} {array.shape};"
            " give floats of shape (rows, dimensions), one row at least."
        )
    some_rows = list(blocks(len(array), ROWS_AT_ONCE))
    bad = np.concatenate([~np.isfinite(array[rows]).all(axis=1) for rows in some_rows])
    _refuse(np.flatnonzero(bad), f"{noun} embeddings hold NaN or infinity", "Encode their inputs again.")
    empty = np.concatenate([~array[rows].any(axis=1) for rows in some_rows])
    _refuse(np.flatnonzero(empty), f"{noun} embeddings are zero throughout", "Encode their inputs again.")
    return array


def checked_owners(image_of_text: ArrayLike, images: int, texts: int) -> Integers:
    """Give each text's image as int64 (M,), when all are there.

    :raises EvaluationError: when they are not; it names the rows at fault.
    """
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
