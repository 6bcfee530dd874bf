"""A twin encoder put together from its parts: preprocessing, tokenizer, and two towers on some runtime."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from crossmodal.encoders.base import Embeddings, Encoder, EncoderCard, Pixels
from crossmodal.encoders.runtime import Runner
from crossmodal.encoders.tokenizer import Tokenizer
from crossmodal.errors import EncoderError
from crossmodal.images import fit_image, load_image
from crossmodal.types import ImageLike


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How a picture becomes the square of pixels that an image tower was trained on."""

    size: int
    fit: Literal["crop", "pad", "squash"]
    resample: Literal["bicubic", "bilinear"]
    crop_fraction: float = 1.0

    def __call__(self, image: ImageLike) -> Pixels:
        """Decode and fit one picture: uint8 (size, size, 3)."""
        needed = math.ceil(self.size / self.crop_fraction)
        decoded = load_image(image, at_least=needed)
        return fit_image(decoded, self.size, self.fit, self.resample, self.crop_fraction)


class TwinEncoder(Encoder):
    """An encoder whose towers run on any backend. Both towers come from the same backend.

    A picture's embedding does not depend on the other pictures of a call, nor a text's on the other texts:
    texts run beside others of exactly their own length, so nothing is ever padded. Through OpenVINO that
    holds bit for bit, through torch to a cosine of 0.999999; the two backends agree as closely.
    """

    def __init__(
        self,
        *,
        name: str,
        fingerprint: str,
        preprocessing: Preprocessing,
        tokenizer: Tokenizer,
        image_tower: Runner,
        text_tower: Runner,
        batch_size: int,
    ) -> None:
        self.card = EncoderCard(
            name=name,
            dim=image_tower.tower.dim,
            fingerprint=fingerprint,
            backend=image_tower.backend,
            dtype=image_tower.dtype,
            image_size=preprocessing.size,
            text_limit=tokenizer.limit,
        )
        self.batch_size = batch_size
        self._preprocessing = preprocessing
        self._tokenizer = tokenizer
        self._image_tower = image_tower
        self._text_tower = text_tower

    def prepare_image(self, image: ImageLike) -> Pixels:
        """Decode and fit one picture: uint8 (H, W, 3) as the image tower wants it.

        :raises ImageError: when it is no picture, is broken or is too large.
        """
        return self._preprocessing(image)

    def embed_pixels(self, pixels: Pixels) -> Embeddings:
        """Embed prepared pictures: uint8 (B, H, W, 3) to float32 (B, D), rows L2-normalised.

        :raises EncoderError: when they are not as ``prepare_image`` makes them.
        """
        size = self._preprocessing.size
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (size, size, 3):
            raise EncoderError(
                f"{self.card.name} embeds uint8 (B, {size}, {size}, 3), got {pixels.dtype} {pixels.shape}; "
                "use prepare_image or encode_images"
            )
        return self._image_tower([(pixels,)])[0]

    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        """Embed texts: float32 (M, D), rows L2-normalised; each runs with those of its own length.

        :raises EncoderError: when something among them is no text.
        """
        tokens = self._tokenizer(texts)
        rows_by_length: dict[int, list[int]] = {}
        for row, ids in enumerate(tokens):
            rows_by_length.setdefault(len(ids), []).append(row)
        batches = []
        for rows in rows_by_length.values():
            batch = np.array([tokens[row] for row in rows], np.int64)
            batches.append((batch, np.ones_like(batch)))
        out = np.empty((len(tokens), self.card.dim), np.float32)
        for rows, embeddings in zip(rows_by_length.values(), self._text_tower(batches), strict=True):
            out[rows] = embeddings
        return out


def fingerprint(**facts: object) -> str:
    """Hash the facts that decide what an encoder's embeddings are: sha256, in hexadecimal."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
