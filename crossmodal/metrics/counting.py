"""How many irrelevant items rank before each relevant one, exactly, without holding the matrix of scores.

A score is the inner product summed in float64 and rounded once, to float32, so that equal embeddings tie.
Whole blocks are multiplied in float32, which is faster and off by a known bound at most; what lies within
that bound of the score it is compared with is computed again as the definition says. Where too much does, as
for a model whose embeddings are all alike, the whole block is multiplied in float64 and rounded.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Embeddings = NDArray[np.floating[Any]]
Integers = NDArray[np.int64]
Scores = NDArray[np.float32]

SCORES_PER_BLOCK = 2**23
"""A block of scores takes 32 MB."""

TEXTS_PER_BLOCK = 2**15
NUMBERS_PER_GATHER = 2**20
THRESHOLDS_AT_ONCE = 64
LARGEST_FOR_FLOAT32 = 1e30

MOST_DOUBTFUL = 0.02
"""The share of a block from which on all of it is multiplied again, judged by some of its rows."""

ROWS_JUDGED = 16


def irrelevant_ahead(images: Embeddings, texts: Embeddings, owner: Integers) -> tuple[Integers, Integers]:
    """Count for each text what ranks before its pair, and is irrelevant; ties rank before it.

    ``images``: (N, D), ``texts``: (M, D), ``owner``: (M,), the row of each text's image.

    :returns: two counts (M,): other images that score as high with the text as its own image does; and texts
        of other images that score as high with its image as the text does.
    """
    counted = _Count(images, texts, owner)
    for columns in blocks(len(texts), TEXTS_PER_BLOCK):
        height = max(1, min(SCORES_PER_BLOCK // (columns.stop - columns.start), TEXTS_PER_BLOCK))
        narrow_texts = texts[columns].astype(counted.dtype, copy=False)
        for rows in blocks(len(images), height):
            scores = images[rows].astype(counted.dtype, copy=False) @ narrow_texts.T
            exact = counted.is_doubtful(scores, rows, columns)
            if exact:
                scores = _rounded_product(images[rows], texts[columns])
            counted.add(scores, rows, columns, exact=exact)
    return counted.images_ahead, counted.texts_ahead


def exact_scores(images: Embeddings, texts: Embeddings, image_rows: Integers, text_rows: Integers) -> Scores:
    """Give the score of each named pair of rows: (P,)."""
    scores = np.empty(len(image_rows), np.float32)
    for some in blocks(len(image_rows), max(1, NUMBERS_PER_GATHER // images.shape[1])):
        left = images[image_rows[some]].astype(np.float64)
        scores[some] = np.einsum("pd,pd->p", left, texts[text_rows[some]].astype(np.float64))
    return scores


def blocks(length: int, size: int) -> Iterator[slice]:
    """Cut ``range(length)`` into slices of ``size`` at most."""
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))


class _Count:
    """The two counts while blocks of scores come in, and what it takes to compare with certainty."""

    def __init__(self, images: Embeddings, texts: Embeddings, owner: Integers) -> None:
        self._images, self._texts, self._owner = images, texts, owner
        self.images_ahead = np.zeros(len(texts), np.int64)
        self.texts_ahead = np.zeros(len(texts), np.int64)
        self._pair_scores = exact_scores(images, texts, owner, np.arange(len(texts)))
        self._by_image = np.argsort(owner, kind="stable")
        self._starts = np.searchsorted(owner[self._by_image], np.arange(len(images) + 1))
        self._image_norms, self._text_norms = _norms(images), _norms(texts)
        largest = self._image_norms.max() * self._text_norms.max()
        self.dtype: type[np.floating[Any]] = np.float32 if largest < LARGEST_FOR_FLOAT32 else np.float64
        self._error = _relative_error(images.shape[1], self.dtype)
        self._exact = False
        self._least_error = images.shape[1] * float(np.finfo(np.float32).tiny)

    def is_doubtful(self, scores: NDArray[Any], rows: slice, columns: slice) -> bool:
        """Say whether too much of a block lies within the error bound, judged by some of its rows."""
        self._exact = False
        some = scores[:: -(-len(scores) // ROWS_JUDGED)]
        spread = self._image_norms[rows].max() * self._text_norms[columns]
        low, high = self._around(self._pair_scores[columns], spread)
        return float(np.mean((some >= low) & (some < high))) > MOST_DOUBTFUL

    def add(self, scores: NDArray[Any], rows: slice, columns: slice, *, exact: bool) -> None:
        """Count in one block of scores, which are rounded already or else within the bound; it is spoilt."""
        self._exact = exact
        inside = self._by_image[self._starts[rows.start] : self._starts[rows.stop]]
        inside = inside[(inside >= columns.start) & (inside < columns.stop)]
        scores[self._owner[inside] - rows.start, inside - columns.start] = -np.inf
        self._count_images(scores, rows, columns)
        doubtful = []
        for row in range(rows.start, rows.stop):
            own = self._by_image[self._starts[row] : self._starts[row + 1]]
            for some in blocks(len(own), THRESHOLDS_AT_ONCE):
                doubtful.append(self._count_texts(scores[row - rows.start], row, own[some], columns))
        if doubtful:
            texts, pairs = (np.concatenate(parts) for parts in zip(*doubtful, strict=True))
            self._settle(self.texts_ahead, self._owner[pairs], texts, pairs)

    def _count_images(self, scores: NDArray[Any], rows: slice, columns: slice) -> None:
        """Compare each column with its text's own score."""
        spread = self._image_norms[rows].max() * self._text_norms[columns]
        low, high = self._around(self._pair_scores[columns], spread)
        maybe, surely = scores >= low, scores >= high
        self.images_ahead[columns] += np.add.reduce(surely.view(np.uint8), axis=0, dtype=np.uint16)
        image, text = _where_different(maybe, surely)
        self._settle(self.images_ahead, image + rows.start, text + columns.start, text + columns.start)

    def _count_texts(
        self, scores: NDArray[Any], row: int, own: Integers, columns: slice
    ) -> tuple[Integers, Integers]:
        """Compare the scores of one image with those of its own texts.

        :returns: what is doubtful: texts, and the own texts they are held against.
        """
        spread = self._image_norms[row] * self._text_norms[columns].max()
        low, high = self._around(self._pair_scores[own], np.full(len(own), spread))
        maybe, surely = scores >= low[:, None], scores >= high[:, None]
        self.texts_ahead[own] += [np.count_nonzero(line) for line in surely]
        place, text = _where_different(maybe, surely)
        return text + columns.start, own[place]

    def _around(self, scores: Scores, spread: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Give bounds: below the first nothing scores as high, from the second on everything does."""
        if self._exact:
            return scores, scores
        error = spread * self._error + self._least_error
        wide = scores.astype(np.float64)
        return (wide - error).astype(self.dtype), (wide + error).astype(self.dtype)

    def _settle(self, counts: Integers, images: Integers, texts: Integers, pairs: Integers) -> None:
        """Count, by the definition, the doubtful scores as high as that of the pair they are held to."""
        as_high = exact_scores(self._images, self._texts, images, texts) >= self._pair_scores[pairs]
        np.add.at(counts, pairs[as_high], 1)


def _rounded_product(images: Embeddings, texts: Embeddings) -> Scores:
    """Give the scores of a block: summed in float64, then rounded."""
    return np.asarray(images.astype(np.float64) @ texts.astype(np.float64).T, np.float32)


def _where_different(left: NDArray[np.bool_], right: NDArray[np.bool_]) -> tuple[Integers, Integers]:
    """Give the rows and columns in which two arrays differ; the first is spoilt."""
    different = np.flatnonzero(np.not_equal(left, right, out=left))
    rows, columns = np.divmod(different, left.shape[1])
    return rows, columns


def _norms(embeddings: Embeddings) -> NDArray[np.float64]:
    """Give the length of each row: (N,)."""
    norms = np.empty(len(embeddings))
    for rows in blocks(len(embeddings), max(1, NUMBERS_PER_GATHER // embeddings.shape[1])):
        norms[rows] = np.linalg.norm(embeddings[rows].astype(np.float64), axis=1)
    return norms


def _relative_error(dim: int, dtype: type[np.floating[Any]]) -> float:
    """Bound what a product may be off, summed in any order, relative to the lengths of its two rows.

    That is dim roundings (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 3.1), some
    more for converting the rows and the bounds themselves, and one float32 step within which scores tie.
    """
    unit = float(np.finfo(dtype).eps) / 2
    return (1.01 * dim + 8) * unit + 2.0**-22
