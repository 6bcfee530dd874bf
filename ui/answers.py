"""What the page answers to what a person asks; knows nothing of how it is laid out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from crossmodal.errors import CrossmodalError, ImageError

if TYPE_CHECKING:
    from crossmodal.collection import Collection
    from crossmodal.types import Hit, ImageLike, Modality

SAMPLE_EXAMPLES = (
    "a red apple",
    "musical instrument",
    "flag with a star",
    "a sleeping cat",
    "sailing ship",
    "snowman in winter",
)
EXAMPLE_LENGTH = 48
REPEATS = 4
"""So many times the captions wanted are asked for, because several pictures may have the same one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Hits, and one sentence that says what they are, or what to do where there are none."""

    note: str
    hits: Sequence["Hit"] = field(default_factory=tuple)
    kind: Literal["found", "nothing", "refused"] = "found"


def pictures_for_words(collection: "Collection", words: str, k: int, least: float) -> Answer:
    """Find the pictures that words describe; ``least`` is the lowest score shown, 0 shows all."""
    words = words.strip()
    if not words:
        return Answer(note="Type what you are looking for, or take one of the examples.", kind="nothing")
    answer = _search(collection, "image", k, terms=[("text", words, 1.0)], least=least)
    return _noted(answer, f"{_count(answer.hits, 'picture')} for “{words}”, the best first")


def pictures_like(
    collection: "Collection", picture: "ImageLike | None", k: int, *, without: str = ""
) -> Answer:
    """Find the pictures that look like a picture; the record ``without``, its own, is left out."""
    if picture is None:
        return Answer(note="Bring a picture, or press one that you have found.", kind="nothing")
    answer = _search(collection, "image", k + bool(without), terms=[("image", picture, 1.0)])
    hits = [hit for hit in answer.hits if hit.key != without][:k]
    return _noted(Answer(note=answer.note, hits=hits, kind=answer.kind), "The most similar first")


def words_for_picture(collection: "Collection", picture: "ImageLike | None", k: int) -> Answer:
    """Find the captions of the collection that describe a picture."""
    if picture is None:
        return Answer(note="Bring a picture to see which captions fit it.", kind="nothing")
    answer = _search(collection, "text", k * REPEATS, terms=[("image", picture, 1.0)])
    if answer.kind == "nothing":
        return Answer(note="This collection has no captions to choose from.", kind="nothing")
    once = {hit.text.strip().lower(): hit for hit in reversed(answer.hits)}
    best = Answer(note=answer.note, hits=list(reversed(once.values()))[:k], kind=answer.kind)
    return _noted(best, "The captions that fit best, out of this collection")


def examples(collection: "Collection", is_sample: bool) -> list[str]:
    """Give things to look for that will be found: ours for the sample, else captions of the collection."""
    if is_sample:
        return list(SAMPLE_EXAMPLES)
    lines = [caption.strip() for caption in collection.captions(40)]
    return list(dict.fromkeys(line for line in lines if 0 < len(line) <= EXAMPLE_LENGTH))[:6]


def _search(
    collection: "Collection",
    target: "Modality",
    k: int,
    *,
    terms: "Sequence[tuple[str, ImageLike, float]]",
    least: float = 0.0,
) -> Answer:
    """Ask the collection; what a person can mend becomes a sentence."""
    try:
        hits = collection.search(terms=terms, target=target, k=k, min_score=least or None)
    except ImageError as error:
        return Answer(note=_about_upload(error, terms[0][1]), kind="refused")
    except CrossmodalError as error:
        return Answer(note=str(error), kind="refused")
    if hits:
        return Answer(note="", hits=hits)
    if least:
        note = f"Nothing scores {least:.2f} or more. Lower the least score, or try other words."
        return Answer(note=note, kind="nothing")
    return Answer(note="This collection is empty. Bring pictures in with: crossmodal index", kind="nothing")


def _noted(answer: Answer, note: str) -> Answer:
    return Answer(note=note, hits=answer.hits) if answer.kind == "found" else answer


def _about_upload(error: ImageError, picture: "ImageLike") -> str:
    """Name an uploaded file as its owner knows it, not where it lies here."""
    reason = str(error)
    if isinstance(picture, str | Path):
        reason = reason.removeprefix(f"{picture}: ")
        return f"{Path(picture).name} cannot be used: {reason}. Bring a JPEG, PNG or WebP picture."
    return f"This picture cannot be used: {reason}"


def _count(hits: "Sequence[Hit]", what: str) -> str:
    return f"{len(hits)} {what}" if len(hits) == 1 else f"{len(hits)} {what}s"
