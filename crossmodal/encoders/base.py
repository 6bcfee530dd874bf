"""What every encoder is, whatever its towers are made of and whatever runs them."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crossmodal.errors import EncoderError
from crossmodal.machine import usable_processors
from crossmodal.types import ImageLike

if TYPE_CHECKING:
    from crossmodal.encoders.calibration import Kept

Embeddings = NDArray[np.float32]
Pixels = NDArray[np.uint8]

TEXTS_AT_ONCE = 1024
"""Texts that one call of ``embed_texts`` is given at most, so that their tokens never fill the memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderCard:
    """The facts of an encoder that a collection stores and a person reads.

    ``name`` is the spec string that loads it again. ``fingerprint`` covers architecture, weights,
    preprocessing and tokenizer, and so says whether two embeddings may be compared. In float32 backends
    agree and share it; any other ``dtype`` has a fingerprint of its own. ``text_limit`` is in tokens; what is
    longer is cut as the model's authors do.
    """

    name: str
    dim: int
    fingerprint: str
    backend: str
    dtype: str
    image_size: int
    text_limit: int

    def to_dict(self) -> dict[str, str | int]:
        """Give the card as plain values for JSON."""
        return asdict(self)


class Encoder(ABC):
    """A twin encoder: pictures and words into one space of ``card.dim`` dimensions.

    A subclass says how one picture becomes pixels (``prepare_image``) and how pixels and texts become
    embeddings. All three may be called from several threads.
    """

    card: EncoderCard
    batch_size: int = 32
    device: str = "cpu"

    @abstractmethod
    def prepare_image(self, image: ImageLike) -> Pixels:
        """Decode and fit one picture: uint8 (H, W, 3) as the image tower wants it.

        :raises ImageError: when it is no picture, is broken or is too large.
        """

    @abstractmethod
    def embed_pixels(self, pixels: Pixels) -> Embeddings:
        """Embed prepared pictures: uint8 (B, H, W, 3) to float32 (B, D), rows L2-normalised."""

    @abstractmethod
    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        """Embed one to ``TEXTS_AT_ONCE`` texts: float32 (M, D), rows L2-normalised.

        :raises EncoderError: when something among them is no text.
        """

    def texts_cut(self, texts: Sequence[str]) -> int:
        """Count the texts that are longer than ``card.text_limit`` tokens and so are cut."""
        return 0

    def quantise(self, calibration: "Iterable[ImageLike] | Kept") -> None:
        """Settle what the towers of an encoder in int8 are made of; the card has its fingerprint then.

        :raises EncoderError: when there is no such form, no picture can be read, or nothing is kept.
        """
        raise EncoderError(f"Encoder {self.card.name} has no int8 form; use float32")

    def keep(self, folder: Path) -> None:  # noqa: B027  # most have nothing to keep
        """Write into a folder what of the encoder could not be made again: int8 towers.

        :raises OSError: when the disk refuses.
        """

    def encode_images(self, images: Iterable[ImageLike]) -> Embeddings:
        """Embed pictures given as paths, bytes, PIL images or uint8 (H, W, 3) arrays: float32 (N, D).

        :raises ImageError: at the first picture that cannot be read; it names it.
        :raises EncoderError: when a single picture is given, not a list.
        """
        if _is_one_picture(images):
            raise EncoderError(
                f"Expected a list of pictures, got one {type(images).__name__}; put it in a list"
            )
        sources = list(images)
        out = np.empty((len(sources), self.card.dim), np.float32)
        with ThreadPoolExecutor(usable_processors(), thread_name_prefix="decode") as pool:
            for start in range(0, len(sources), self.batch_size):
                batch = list(pool.map(self.prepare_image, sources[start : start + self.batch_size]))
                out[start : start + len(batch)] = self.embed_pixels(np.stack(batch))
        return out

    def encode_texts(self, texts: Iterable[str]) -> Embeddings:
        """Embed any number of texts: float32 (M, D), in their order.

        :raises EncoderError: when something among them is no text, or a single text is given, not a list.
        """
        if isinstance(texts, str):
            raise EncoderError(f"Expected a list of texts, got one str: {texts!r:.80}; put it in a list")
        strings = list(texts)
        out = np.empty((len(strings), self.card.dim), np.float32)
        for start in range(0, len(strings), TEXTS_AT_ONCE):
            rows = slice(start, start + TEXTS_AT_ONCE)
            out[rows] = self.embed_texts(strings[rows])
        return out


def _is_one_picture(images: object) -> bool:
    """Tell a picture from a list of them; an array of four axes is a list of arrays."""
    if isinstance(images, np.ndarray):
        return images.ndim in (2, 3)
    return isinstance(images, str | bytes | os.PathLike) or not isinstance(images, Iterable)
