"""What every encoder is, whatever its towers are made of and whatever runs them."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from crossmodal.errors import EncoderError
from crossmodal.types import ImageLike

Embeddings = NDArray[np.float32]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderCard:
    """The facts of an encoder that a collection stores and a person reads.

    ``name`` is the spec string that loads it again. ``fingerprint`` covers architecture, weights,
    preprocessing and tokenizer, and so says whether two embeddings may be compared; backends that agree share
    it. ``text_limit`` is in tokens; what is longer is cut as the model's authors do.
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
        """Embed texts: float32 (M, D), rows L2-normalised; one batch, whatever its length."""

    def encode_images(self, images: Iterable[ImageLike]) -> Embeddings:
        """Embed pictures given as paths, bytes, PIL images or uint8 (H, W, 3) arrays: float32 (N, D).

        :raises ImageError: at the first picture that cannot be read; it names it.
        :raises EncoderError: when a single picture is given, not a list.
        """
        if isinstance(images, str | bytes | os.PathLike):
            raise EncoderError(
                f"Expected a list of pictures, got one {type(images).__name__}; put it in a list"
            )
        sources = list(images)
        out = np.empty((len(sources), self.card.dim), np.float32)
        with ThreadPoolExecutor(thread_name_prefix="decode") as pool:
            for start in range(0, len(sources), self.batch_size):
                batch = list(pool.map(self.prepare_image, sources[start : start + self.batch_size]))
                out[start : start + len(batch)] = self.embed_pixels(np.stack(batch))
        return out

    def encode_texts(self, texts: Iterable[str]) -> Embeddings:
        """Embed texts, those of like length together: float32 (M, D), in their order."""
        strings = list(texts)
        out = np.empty((len(strings), self.card.dim), np.float32)
        order = sorted(range(len(strings)), key=lambda i: len(strings[i]))
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            out[rows] = self.embed_texts([strings[i] for i in rows])
        return out
