"""A twin encoder put together from its parts: preprocessing, tokenizer, and two towers on some runtime."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from crossmodal.encoders.base import Embeddings, Encoder, EncoderCard, Pixels
from crossmodal.encoders.blueprint import Blueprint, Tokenize
from crossmodal.encoders.preprocessing import Preprocess
from crossmodal.encoders.runtime import InputSpec, Runner, Tower, Way, run_tower
from crossmodal.errors import EncoderError
from crossmodal.types import ImageLike

if TYPE_CHECKING:
    from torch import nn

BATCH_SIZE = 32


class TwinEncoder(Encoder):
    """An encoder whose towers run on any backend. Both towers come from the same backend.

    A picture's embedding does not depend on the other pictures of a call, nor a text's on the other texts:
    texts run beside others of exactly their own length, and only a tokenizer whose tower wants it pads.
    Through OpenVINO that holds bit for bit, through torch to a cosine of 0.999999; the two agree as closely.
    """

    def __init__(
        self,
        *,
        name: str,
        fingerprint: str,
        preprocessing: Preprocess,
        tokenizer: Tokenize,
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
            image_size=max(preprocessing.shape),
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
        height, width = self._preprocessing.shape
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (height, width, 3):
            raise EncoderError(
                f"{self.card.name} embeds uint8 (B, {height}, {width}, 3), "
                f"got {pixels.dtype} {pixels.shape}; use prepare_image or encode_images"
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
            batches.append((batch, np.ones_like(batch))[: len(self._text_tower.tower.inputs)])
        out = np.empty((len(tokens), self.card.dim), np.float32)
        for rows, embeddings in zip(rows_by_length.values(), self._text_tower(batches), strict=True):
            out[rows] = embeddings
        return out


def assemble(blueprint: Blueprint, way: Way) -> TwinEncoder:
    """Put a twin encoder together from its blueprint; nothing is built yet."""
    height, width = blueprint.preprocessing.shape
    length = blueprint.tokenizer.limit if blueprint.tokenizer.padded else None
    tower = partial(Tower, encoder=blueprint.name, fingerprint=blueprint.fingerprint, dim=blueprint.dim)
    pixels, ids = InputSpec("uint8", (None, height, width, 3)), InputSpec("int64", (None, length))
    image = tower(modality="image", inputs=(pixels,), build=_image_of(blueprint))
    text = tower(modality="text", inputs=(ids,), build=_text_of(blueprint))
    return TwinEncoder(
        name=blueprint.name,
        fingerprint=blueprint.fingerprint,
        preprocessing=blueprint.preprocessing,
        tokenizer=blueprint.tokenizer,
        image_tower=run_tower(image, way),
        text_tower=run_tower(text, way),
        batch_size=way.batch_size or BATCH_SIZE,
    )


# Each tower is loaded by itself, so that the other one's weights can go as soon as it is built.


def _image_of(blueprint: Blueprint) -> "Callable[[], nn.Module]":
    return lambda: blueprint.load().image


def _text_of(blueprint: Blueprint) -> "Callable[[], nn.Module]":
    return lambda: blueprint.load().text
