"""From what a person asks for to one vector."""

import numbers
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from crossmodal.encoders.base import Embeddings, Encoder
from crossmodal.errors import QueryError, unknown
from crossmodal.types import MODALITIES, ImageLike, Term

AVOID_WEIGHT = -0.5
"""The weight of a term to avoid where none is given: it pushes away without deciding alone."""


def make_terms(
    text: str | None = None,
    image: ImageLike | None = None,
    terms: Sequence[tuple[str, ImageLike, float] | Term] | None = None,
) -> list[Term]:
    """Gather a query's parts; ``text`` and ``image`` weigh 1.

    :raises QueryError: when there is nothing to look for, a text is empty, or a weight is not finite.
    """
    gathered: list[Term] = []
    if text is not None:
        gathered.append(Term("text", text))
    if image is not None:
        gathered.append(Term("image", image))
    gathered.extend(_as_term(term) for term in terms or ())
    if not gathered:
        raise QueryError("The query is empty; give a text, an image or weighted terms")
    for term in gathered:
        _check(term)
    if all(term.weight == 0 for term in gathered):
        raise QueryError("Every term weighs 0; give at least one another weight")
    return gathered


def embed_query(terms: Sequence[Term], encoder: Encoder) -> Embeddings:
    """Give the query as one L2-normalised vector, float32 (D,): the weighted sum of its terms' embeddings.

    :raises QueryError: when the terms cancel each other out.
    :raises ImageError: when a query picture cannot be read.
    """
    texts = [term for term in terms if term.modality == "text"]
    images = [term for term in terms if term.modality == "image"]
    total = np.zeros(encoder.card.dim, np.float32)
    if texts:
        total += _weights(texts) @ encoder.encode_texts(str(term.value) for term in texts)
    if images:
        total += _weights(images) @ encoder.encode_images([term.value for term in images])
    norm = float(np.linalg.norm(total))
    if norm < 1e-6:
        raise QueryError("The terms cancel each other out; change their weights")
    return (total / norm).astype(np.float32)


def check_k(k: int) -> int:
    """Check how many hits are asked for.

    :raises QueryError: when it is no whole number from 1 on.
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise QueryError(f"k is {k!r}; ask for at least 1 hit")
    return int(k)


def check_least(min_score: float | None) -> float:
    """Give the least score a hit may have; all pass where none is asked for.

    :raises QueryError: when it is no number.
    """
    if min_score is None:
        return -np.inf
    if not _is_number(min_score) or np.isnan(min_score):
        raise QueryError(f"The least score is a number; saw {min_score!r}")
    return float(min_score)


def _as_term(term: tuple[str, ImageLike, float] | Term) -> Term:
    if isinstance(term, Term):
        return term
    if not isinstance(term, tuple | list) or len(term) != 3:
        raise QueryError(
            f"A term is (modality, value, weight), for example ('text', 'red bus', 1.0); saw {term!r}"
        )
    modality, value, weight = term
    if modality not in MODALITIES:
        raise QueryError(unknown("modality of a term", str(modality), MODALITIES))
    if not _is_number(weight):
        raise QueryError(f"A term's weight is a number; saw {weight!r}")
    return Term(modality, value, float(weight))


def _check(term: Term) -> None:
    if not np.isfinite(term.weight):
        raise QueryError(f"A term's weight must be finite; saw {term.weight}")
    if term.modality == "text":
        if not isinstance(term.value, str):
            raise QueryError(f"A text to look for must be a string; saw {type(term.value).__name__}")
        if not term.value.strip():
            raise QueryError("The text to look for is empty; type some words")
    elif isinstance(term.value, str | os.PathLike) and not str(term.value).strip():
        raise QueryError("The path of the query picture is empty")


def _is_number(value: Any) -> bool:
    """Say whether a value is a number, Python's or NumPy's; callers may have seen no type checker."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_)


def _weights(terms: Sequence[Term]) -> Embeddings:
    return np.array([term.weight for term in terms], np.float32)
