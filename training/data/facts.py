"""What is known of a data set before the first step, for people and for JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from crossmodal.encoders.blueprint import Tokenize
from training.data.examples import NO_CAPTION, Examples

TEXTS_MEASURED = 50_000
"""Texts whose length in tokens is measured at most, spread evenly over all."""

SHOWN = 3
"""So many of the things left out are named for people; the dictionary has all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """How long ``measured`` texts are in tokens, and how many of them are cut at ``limit``."""

    measured: int
    limit: int
    cut: int
    median: float
    longest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitFacts:
    """What one split holds, once what cannot be learnt from is left out.

    ``captions_per_image``: by a number of captions, how many pictures have so many. ``repeated_captions``:
    texts that pictures of more than one group have. ``same_pictures``: records whose picture an earlier one
    has byte for byte. ``unreadable`` and ``skipped`` hold keys with reasons.
    """

    spec: str
    images: int
    captions: int
    captions_per_image: dict[int, int]
    repeated_captions: int
    same_pictures: int
    negatives: int
    without_caption: int
    unreadable: Sequence[tuple[str, str]]
    skipped: Sequence[tuple[str, str]]
    lengths: Lengths | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What training and validation share: keys of training records by reason, and the number of captions."""

    same_picture: Sequence[str]
    same_key: Sequence[str]
    same_captions: int
    handled: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DataCheck:
    """What the check of a data set found."""

    training: SplitFacts
    validation: SplitFacts | None = None
    shared: Shared | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give all of it as plain values for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Tell a person what is worth knowing, a line for each thing."""
        told = list(_split_lines("Training", self.training))
        if self.validation is not None:
            told += _split_lines("Validation", self.validation)
        if self.shared is not None:
            told += _shared_lines(self.shared)
        return told


def split_facts(
    examples: Examples, unreadable: Sequence[tuple[str, str]], tokenizer: Tokenize | None
) -> SplitFacts:
    """Count what a split holds; with a tokenizer, measure its texts."""
    lengths = examples.captions.lengths
    counts, pictures = np.unique(lengths, return_counts=True)
    groups_at_all = int(examples.groups.max()) + 1
    texts_of_groups = np.unique(
        examples.captions.values * groups_at_all + np.repeat(examples.groups, lengths)
    )
    _, groups = np.unique(texts_of_groups // groups_at_all, return_counts=True)
    return SplitFacts(
        spec=examples.spec,
        images=len(examples),
        captions=int(lengths.sum()),
        captions_per_image=dict(zip(counts.tolist(), pictures.tolist(), strict=True)),
        repeated_captions=int((groups > 1).sum()),
        same_pictures=len(examples) - len(np.unique(examples.groups)),
        negatives=len(examples.negatives.values),
        without_caption=sum(reason == NO_CAPTION for _, reason in examples.skipped),
        unreadable=tuple(unreadable),
        skipped=tuple(examples.skipped),
        lengths=None if tokenizer is None else _measure(examples, tokenizer),
    )


def _measure(examples: Examples, tokenizer: Tokenize) -> Lengths:
    numbers = np.unique(examples.captions.values)
    chosen = numbers[:: -(-len(numbers) // TEXTS_MEASURED)]
    tokens = np.array(tokenizer.lengths([examples.texts[number] for number in chosen]))
    return Lengths(
        measured=len(tokens),
        limit=tokenizer.limit,
        cut=int((tokens > tokenizer.limit).sum()),
        median=float(np.median(tokens)),
        longest=int(tokens.max()),
    )


def _split_lines(name: str, facts: SplitFacts) -> Iterator[str]:
    per_image = facts.captions_per_image
    spread = f"{min(per_image)} each" if len(per_image) == 1 else f"{min(per_image)} to {max(per_image)} each"
    yield f"{name}: {facts.images:,} pictures with {facts.captions:,} captions ({spread}), from {facts.spec}"
    if facts.lengths is not None:
        seen = facts.lengths
        cut = f"{seen.cut:,} of {seen.measured:,} are cut at {seen.limit}" if seen.cut else "none is cut"
        yield f"{name}: captions of {seen.median:g} tokens in the middle, {seen.longest:,} at most; {cut}"
    if facts.negatives:
        yield f"{name}: {facts.negatives:,} negative captions of your own"
    if facts.unreadable:
        yield f"{name}: {len(facts.unreadable):,} pictures cannot be read: {_named(facts.unreadable)}"
    if facts.skipped:
        yield f"{name}: {len(facts.skipped):,} records hold no pair: {_named(facts.skipped)}"
    if facts.same_pictures:
        yield f"{name}: {facts.same_pictures:,} records show the picture of an earlier one, as one group"
    if facts.repeated_captions:
        yield f"{name}: {facts.repeated_captions:,} captions belong to several pictures"


def _shared_lines(shared: Shared) -> Iterator[str]:
    done = {"drop": "left out of training", "keep": "kept in both, as asked"}.get(shared.handled, "refused")
    for keys, what in ((shared.same_picture, "picture"), (shared.same_key, "key")):
        if keys:
            names = ", ".join(keys[:SHOWN])
            yield f"Both: {len(keys):,} training records have a {what} of validation ({names}); {done}"
    if shared.same_captions:
        yield f"Both: {shared.same_captions:,} captions are in training and in validation"


def _named(left_out: Sequence[tuple[str, str]]) -> str:
    """Name the first of the things left out, with why."""
    first = "; ".join(f"{key}: {reason}" for key, reason in left_out[:SHOWN])
    return first + ("; ..." if len(left_out) > SHOWN else "")
