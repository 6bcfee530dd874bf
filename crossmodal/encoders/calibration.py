"""The pictures that an int8 tower is calibrated on: some of the user's own, spread over all of them."""

import hashlib
import json
import logging
import random
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossmodal.encoders.base import Pixels
from crossmodal.errors import EncoderError, ImageError
from crossmodal.machine import usable_processors
from crossmodal.types import ImageLike, Record

PICTURES = 300
"""So many pictures settle the ranges of a tower's activations; NNCF's own default is the same."""

FEW = 32
"""With fewer the ranges are guesses, and that is told."""

FACTS = "int8.json"
"""Beside a quantised tower: what it was quantised from and on."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """int8 towers that were made before: the fingerprint of their encoder, and the folder that keeps them."""

    fingerprint: str
    folder: Path


def choose_pictures(records: Iterable[Record], count: int = PICTURES, seed: int = 0) -> list[ImageLike]:
    """Choose pictures at random, each with the same chance, in one pass and the order of the records.

    At most ``count`` are held at any moment (Vitter 1985, https://doi.org/10.1145/3147.3165, algorithm R).
    """
    chance = random.Random(seed)
    chosen: list[tuple[int, ImageLike]] = []
    for number, record in enumerate(records):
        if number < count:
            chosen.append((number, record.image))
        elif (place := chance.randrange(number + 1)) < count:
            chosen[place] = (number, record.image)
    return [image for _, image in sorted(chosen, key=lambda pair: pair[0])]


def decode(pictures: Iterable[ImageLike], prepare: Callable[[ImageLike], Pixels]) -> Pixels:
    """Decode and fit pictures: uint8 (N, H, W, 3), without those that cannot be read.

    :raises EncoderError: when none can.
    """

    def attempt(picture: ImageLike) -> Pixels | None:
        try:
            return prepare(picture)
        except (ImageError, OSError):
            return None  # whoever adds it will hear why

    given = list(pictures)
    with ThreadPoolExecutor(usable_processors(), thread_name_prefix="decode") as pool:
        decoded = [pixels for pixels in pool.map(attempt, given) if pixels is not None]
    if not decoded:
        raise EncoderError(
            f"int8 is calibrated on pictures, and of {len(given)} given none could be read; "
            "give pictures like those to be searched"
        )
    if len(decoded) < FEW:
        _log.warning("int8 is calibrated on only %d pictures; some hundred would be better", len(decoded))
    return np.stack(decoded)


def digest(pixels: Pixels) -> str:
    """Hash prepared pictures: sha256, in hexadecimal."""
    hashed = hashlib.sha256(f"{pixels.shape}".encode())
    hashed.update(np.ascontiguousarray(pixels).data)
    return hashed.hexdigest()


def read_facts(folder: Path) -> dict[str, str]:
    """Read what a folder of a quantised tower says of it; empty where there is none, or a torn one."""
    try:
        facts = json.loads((folder / FACTS).read_bytes())
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}
