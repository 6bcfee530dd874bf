"""The queries of a validation that went worst and best, both ways, to be looked at."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.examples import Examples, Integers

Vectors = NDArray[np.float32]

_QUERIES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One query: the pair it asks for, the rank of that, and the stranger that scored highest.

    ``row`` is a picture and ``text`` a caption of it; one of them is asked with. ``rank`` counts from 1 among
    ``gallery``, ties at the query's cost.
    """

    row: int
    text: str
    rank: int
    gallery: int
    score: float
    other_row: int
    other_text: str
    other_score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Extremes:
    """Of one direction the worst queries, worst first, and those found first with the clearest lead."""

    worst: tuple[Query, ...]
    best: tuple[Query, ...]


def text_to_image(examples: Examples, images: Vectors, texts: Vectors, count: int = 6) -> Extremes:
    """Look at every caption as a query for its picture.

    ``images``: (N, D) of the examples; ``texts``: (M, D) of all their captions, row after row, as
    ``examples.captions.values`` has them.
    """
    owners, numbers = examples.captions.owners, examples.captions.values
    found = _rank(texts, images, owners, np.arange(len(images)))

    def query(place: int) -> Query:
        other = int(found.other[place])
        return Query(
            row=int(owners[place]),
            text=examples.texts[numbers[place]],
            other_row=other,
            other_text=examples.texts_of(other)[0],
            **found.figures(place, len(images)),
        )

    return _extremes(found, count, query)


def image_to_text(examples: Examples, images: Vectors, texts: Vectors, count: int = 6) -> Extremes:
    """Look at every picture as a query for any of its captions; shapes as for ``text_to_image``."""
    owners, numbers = examples.captions.owners, examples.captions.values
    found = _rank(images, texts, np.arange(len(images)), owners)

    def query(place: int) -> Query:
        own, other = int(found.own[place]), int(found.other[place])
        return Query(
            row=place,
            text=examples.texts[numbers[own]],
            other_row=int(owners[other]),
            other_text=examples.texts[numbers[other]],
            **found.figures(place, len(texts)),
        )

    return _extremes(found, count, query)


@dataclass(frozen=True, slots=True)
class _Ranked:
    """Of Q queries: the rank and score of the best relevant item, its place, and those of the best other."""

    rank: Integers
    own: Integers
    score: Vectors
    other: Integers
    other_score: Vectors

    def figures(self, place: int, gallery: int) -> dict[str, Any]:
        return {
            "rank": int(self.rank[place]),
            "gallery": gallery,
            "score": float(self.score[place]),
            "other_score": float(self.other_score[place]),
        }


def _rank(queries: Vectors, gallery: Vectors, wanted: Integers, owners: Integers) -> _Ranked:
    """Rank a gallery for queries, a block of the scores at a time; relevant is what ``wanted`` owns."""
    parts = []
    for start in range(0, len(queries), _QUERIES):
        rows = slice(start, start + _QUERIES)
        scores = queries[rows] @ gallery.T
        relevant = wanted[rows, None] == owners
        own_scores = np.where(relevant, scores, -np.inf)
        others = np.where(relevant, -np.inf, scores)
        own, other = own_scores.argmax(1), others.argmax(1)
        each = np.arange(len(scores))
        score = own_scores[each, own]
        rank = 1 + (others >= score[:, None]).sum(1)
        parts.append((rank, own, score, other, others[each, other]))
    return _Ranked(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _extremes(found: _Ranked, count: int, query: Callable[[int], Query]) -> Extremes:
    lead = found.score - found.other_score
    order = np.lexsort((lead, -found.rank))
    worst = [place for place in order[:count].tolist() if found.rank[place] > 1]
    best = [place for place in order[::-1][:count].tolist() if found.rank[place] == 1]
    return Extremes(worst=tuple(map(query, worst)), best=tuple(map(query, best)))
