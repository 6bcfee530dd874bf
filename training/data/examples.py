"""All of a source but its pixels, in memory: keys, captions, and where each picture's bytes are."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from crossmodal.errors import TrainingError
from crossmodal.sources import Source, read_uri
from crossmodal.sources.columns import captions_from
from crossmodal.types import ImageLike, Record

Integers = NDArray[np.int64]

NEGATIVES = "negatives"
"""The column, among those a source keeps as metadata, that holds captions which do not fit the picture."""

HOLD_BYTES = 512 * 2**20
"""Pictures that a source hands over as bytes stay in memory up to this sum; later ones are read again."""

NO_CAPTION = "it has no caption, so there is nothing to learn from"


@dataclass(frozen=True, slots=True)
class Ragged:
    """Lists of different lengths in two arrays: list ``n`` is ``values[starts[n] : starts[n + 1]]``."""

    values: Integers
    starts: Integers

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> "Ragged":
        """Put lists one behind the other."""
        starts = np.zeros(len(lists) + 1, np.int64)
        np.cumsum([len(one) for one in lists], out=starts[1:])
        values = [value for one in lists for value in one]
        return cls(np.array(values, np.int64), starts)

    def __getitem__(self, number: int) -> Integers:
        return self.values[self.starts[number] : self.starts[number + 1]]

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> Integers:
        """The length of each list."""
        return np.diff(self.starts)

    @property
    def owners(self) -> Integers:
        """For each value, the number of the list it is in."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def gather(self, numbers: Integers, most: int | None = None) -> tuple[Integers, Integers]:
        """Give the values of these lists one behind the other, and for each its list's place in ``numbers``.

        :param most: take so many of the first of each list at most.
        """
        lengths = self.lengths[numbers]
        if most is not None:
            lengths = np.minimum(lengths, most)
        before = np.cumsum(lengths) - lengths
        within = np.arange(lengths.sum()) - np.repeat(before, lengths)
        values = self.values[np.repeat(self.starts[numbers], lengths) + within]
        return values, np.repeat(np.arange(len(numbers)), lengths)

    def take(self, numbers: Integers) -> "Ragged":
        """Keep the lists of these numbers, in this order."""
        values, places = self.gather(numbers)
        starts = np.searchsorted(places, np.arange(len(numbers) + 1))
        return Ragged(values, starts.astype(np.int64))


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """N records with captions, each known by its row.

    ``texts`` holds every distinct caption once; ``captions[row]`` and ``negatives[row]`` are numbers of
    texts. ``groups``: (N,) int64; rows of one group show the same thing, and all captions of a group are
    positives of all its pictures. ``pictures[row]`` is a path or the bytes of a file, or None where they are
    to be read from ``uris[row]``. ``skipped``: keys and reasons of what could not become an example.
    """

    spec: str
    keys: Sequence[str]
    pictures: Sequence[ImageLike | None]
    uris: Sequence[str]
    texts: Sequence[str]
    captions: Ragged
    negatives: Ragged
    groups: Integers
    skipped: Sequence[tuple[str, str]] = ()

    def __len__(self) -> int:
        return len(self.keys)

    def picture(self, row: int) -> ImageLike:
        """Give a row's picture, as ``load_image`` takes it.

        :raises SourceError: when it has to be read again and is not there any more.
        """
        held = self.pictures[row]
        return read_uri(self.uris[row]) if held is None else held

    def texts_of(self, row: int) -> list[str]:
        """Give the captions of a row."""
        return [self.texts[number] for number in self.captions[row]]

    def take(self, rows: Iterable[int]) -> "Examples":
        """Keep these rows, in this order; texts keep their numbers."""
        chosen = np.fromiter(rows, np.int64)
        return replace(
            self,
            keys=[self.keys[row] for row in chosen],
            pictures=[self.pictures[row] for row in chosen],
            uris=[self.uris[row] for row in chosen],
            captions=self.captions.take(chosen),
            negatives=self.negatives.take(chosen),
            groups=self.groups[chosen],
        )


@dataclass(slots=True)
class _Texts:
    """Numbers for texts: a text that comes again has the number it had."""

    numbers: dict[str, int] = field(default_factory=dict)

    def intern(self, texts: Iterable[str]) -> list[int]:
        stripped = (text.strip() for text in texts)
        return [self.numbers.setdefault(text, len(self.numbers)) for text in dict.fromkeys(stripped) if text]


def read_examples(source: Source, *, hold_bytes: int = HOLD_BYTES) -> Examples:
    """Read a source once: every record with a caption is an example, and what is left out is listed.

    A caption that a record has twice counts once.

    :raises SourceError: when the source cannot be read.
    :raises TrainingError: when it holds no record with a caption.
    """
    texts = _Texts()
    keys: list[str] = []
    pictures: list[ImageLike | None] = []
    uris: list[str] = []
    captions: list[list[int]] = []
    negatives: list[list[int]] = []
    left_out: list[tuple[str, str]] = []
    held = 0
    for record in source:
        own = texts.intern(record.captions)
        if not own:
            left_out.append((record.key, NO_CAPTION))
            continue
        size = _bytes_of(record.image)
        again = size > 0 and bool(record.uri) and held + size > hold_bytes
        held += 0 if again else size
        keys.append(record.key)
        pictures.append(None if again else record.image)
        uris.append(record.uri)
        captions.append(own)
        negatives.append([number for number in texts.intern(_negatives(record)) if number not in own])
    skipped = (*source.skipped, *left_out)
    if not keys:
        raise TrainingError(
            f"{source.spec} holds no picture with a caption ({len(skipped)} left out"
            + (f"; the first: {skipped[0][0]}: {skipped[0][1]}" if skipped else "")
            + "). Training needs pairs: give captions beside the pictures or in a table"
        )
    return Examples(
        spec=source.spec,
        keys=keys,
        pictures=pictures,
        uris=uris,
        texts=list(texts.numbers),
        captions=Ragged.of(captions),
        negatives=Ragged.of(negatives),
        groups=np.arange(len(keys)),
        skipped=skipped,
    )


def _negatives(record: Record) -> tuple[str, ...]:
    """Give a user's own hard negatives; a list came through the source as JSON."""
    return captions_from(record.metadata.get(NEGATIVES))


def _bytes_of(image: ImageLike) -> int:
    """Give the memory a picture takes as the source handed it over; a path takes none worth counting."""
    if isinstance(image, bytes):
        return len(image)
    return 0 if isinstance(image, str | os.PathLike) else 1
