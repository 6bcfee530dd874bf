"""A look at each picture before training: whether it can be read, and which others it equals in its bytes."""

import io
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

import numpy as np

from crossmodal.errors import CrossmodalError, ImageError
from crossmodal.image_headers import early_sizes, format_of, what_else
from crossmodal.images import MAX_PIXELS, load_image
from crossmodal.machine import usable_processors
from crossmodal.pipeline import content_digest
from crossmodal.types import ImageLike
from training.data.examples import Examples, Integers

T = TypeVar("T")

_HEAD = 1024


@dataclass(frozen=True, slots=True)
class Look:
    """What tells most pictures apart, the size and the first bytes of a file, and why one cannot be read."""

    stamp: str = ""
    failure: str = ""


def look_at(examples: Examples, *, decode: bool = False) -> list[Look]:
    """Look at every picture: at its header, or with ``decode`` at all of it."""

    def look(row: int) -> Look:
        try:
            picture = examples.picture(row)
            if decode or not isinstance(picture, str | bytes | os.PathLike):
                load_image(picture)
            else:
                _read_header(picture)
            return Look(_stamp(picture))
        except (CrossmodalError, OSError, ValueError) as error:
            return Look(failure=reason_of(error))

    return list(in_threads(look, range(len(examples))))


def same_pictures(parts: Sequence[tuple[Examples, Sequence[Look]]]) -> Integers:
    """Number the pictures of some splits, one behind the other: equal numbers, equal bytes.

    Only files that share their size and first bytes with another one are read whole.
    """
    places = [(examples, row) for examples, _ in parts for row in range(len(examples))]
    stamps = [look.stamp for _, looks in parts for look in looks]
    times = Counter(stamps)
    suspects = [place for place, stamp in enumerate(stamps) if times[stamp] > 1]

    def digest(place: int) -> str:
        examples, row = places[place]
        try:
            return content_digest(examples.picture(row))
        except (CrossmodalError, OSError):  # it went since it was looked at: like no other that is known
            return f"gone {place}"

    numbers = np.arange(len(places))
    seen: dict[str, int] = {}
    for place, found in zip(suspects, in_threads(digest, suspects), strict=True):
        numbers[place] = seen.setdefault(found, place)
    return numbers


def in_threads(work: Callable[[int], T], rows: Iterable[int]) -> Iterator[T]:
    """Give ``work`` of each row, in their order, from as many threads as there are processors."""
    with ThreadPoolExecutor(usable_processors(), thread_name_prefix="look") as pool:
        yield from pool.map(work, rows)


def reason_of(error: Exception) -> str:
    """Give in one line why a picture could not be read."""
    if isinstance(error, FileNotFoundError) and not isinstance(error, CrossmodalError):
        return "no such file"
    return " ".join(str(error).split()) or type(error).__name__


def _stamp(picture: ImageLike) -> str:
    if not isinstance(picture, str | bytes | os.PathLike):
        return "no file"
    with _opened(picture) as file:
        head = file.read(_HEAD)
        return f"{file.seek(0, os.SEEK_END)} {zlib.crc32(head)}"


def _read_header(picture: str | bytes | os.PathLike[str]) -> None:
    """Read as much of a file as tells its kind and its size in pixels.

    :raises ImageError: when it is no picture, or its header is broken or tells of too many pixels.
    """
    with _opened(picture) as file:
        head = file.read(_HEAD)
        plugin = format_of(head)
        if plugin is None:
            raise ImageError(what_else(head))
        try:
            sizes = list(early_sizes(plugin, file))
            file.seek(0)
            if all(width * height <= MAX_PIXELS for width, height in sizes):
                with plugin(file) as image:
                    sizes.append(image.size)
        except Exception as error:  # of no common class, as PIL stumbles over what is broken
            raise ImageError(f"broken {plugin.format} ({' '.join(str(error).split())})") from error
    for width, height in sizes:
        if not 0 < width * height <= MAX_PIXELS:
            raise ImageError(f"{width} x {height} pixels; 1 to {MAX_PIXELS:,} are decoded")


def _opened(picture: str | bytes | os.PathLike[str]) -> IO[bytes]:
    return io.BytesIO(picture) if isinstance(picture, bytes) else Path(picture).open("rb")
