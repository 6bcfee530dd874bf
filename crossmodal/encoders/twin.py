"""A twin encoder put together from its parts: preprocessing, tokenizer, and two towers on some runtime."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crossmodal.encoders.base import Embeddings, Encoder, EncoderCard, Pixels
from crossmodal.encoders.blueprint import Blueprint, Tokenize
from crossmodal.encoders.blueprint import fingerprint as fingerprint_of
from crossmodal.encoders.calibration import Kept, decode, digest
from crossmodal.encoders.preprocessing import Preprocess
from crossmodal.encoders.runtime import InputSpec, Quantisation, Runner, Tower, Way, memory, run_tower
from crossmodal.encoders.tokenizer import encodable
from crossmodal.errors import EncoderError
from crossmodal.types import ImageLike

if TYPE_CHECKING:
    from torch import nn

GROWTH = 11
"""How much longer in UTF-8 a text may become when Unicode's compatibility forms are resolved."""

MARKS = 4
"""Tokens that a tokenizer adds to a text at most: marks of its beginning and end."""


class TwinEncoder(Encoder):
    """An encoder whose towers run on any backend. Both towers come from the same backend.

    A picture's embedding does not depend on the other pictures of a call, nor a text's on the other texts:
    texts run beside others of exactly their own length, and only a tokenizer whose tower wants it pads.
    In float32 that holds bit for bit through OpenVINO, through torch to a cosine of 0.999999; the two agree
    as closely, and share a fingerprint. In any other arithmetic each backend rounds in its own way, and the
    fingerprint covers both.
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
        batch_size: int | None = None,
    ) -> None:
        self.card = EncoderCard(
            name=name,
            dim=image_tower.tower.dim,
            fingerprint=_with_arithmetic(fingerprint, image_tower),
            backend=image_tower.backend,
            dtype=image_tower.dtype,
            image_size=max(preprocessing.shape),
            text_limit=tokenizer.limit,
        )
        self.device = image_tower.device
        self.batch_size = batch_size or memory.batch_size(preprocessing.shape, image_tower.most_rows)
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
            batches.append((np.array([tokens[row] for row in rows], np.int64),))
        out = np.empty((len(tokens), self.card.dim), np.float32)
        for rows, embeddings in zip(rows_by_length.values(), self._text_tower(batches), strict=True):
            out[rows] = embeddings
        return out

    def texts_cut(self, texts: Sequence[str]) -> int:
        """Count the texts that are longer than ``card.text_limit`` tokens and so are cut.

        :raises EncoderError: when something among them is no text.
        """
        limit = self._tokenizer.limit
        suspects = [text for text in encodable(texts) if _most_tokens(text) > limit]
        return sum(length > limit for length in self._tokenizer.lengths(suspects)) if suspects else 0

    def quantise(self, calibration: Iterable[ImageLike] | Kept) -> None:
        """Settle what the int8 image tower is made of: pictures to calibrate it on, or one made before.

        :raises EncoderError: when no picture can be read, or nothing is kept.
        :raises MissingPackageError: when pictures are given and NNCF is not installed.
        """
        from crossmodal.encoders.runtime.int8 import RECIPE, nncf_version

        if isinstance(calibration, Kept):
            quantisation = Quantisation(fingerprint=calibration.fingerprint, kept=calibration.folder)
        else:
            nncf = nncf_version()
            pixels = decode(calibration, self.prepare_image)
            facts = {"recipe": RECIPE, "nncf": nncf, "calibration": digest(pixels)}
            identity = fingerprint_of(base=self.card.fingerprint, **facts)
            quantisation = Quantisation(fingerprint=identity, pixels=pixels)
        self._image_tower.quantise(quantisation)
        self.card = replace(self.card, fingerprint=quantisation.fingerprint)

    def keep(self, folder: Path) -> None:
        """Write into a folder what of the encoder could not be made again: an int8 image tower.

        :raises OSError: when the disk refuses.
        """
        self._image_tower.keep(folder)


def _with_arithmetic(fingerprint: str, tower: Runner) -> str:
    """Give the fingerprint of an encoder whose towers compute in some arithmetic."""
    if tower.dtype == "float32":
        return fingerprint
    return fingerprint_of(base=fingerprint, dtype=tower.dtype, backend=tower.backend)


def _most_tokens(text: str) -> int:
    """Give a bound on a text's tokens that costs nothing: each token stands for a byte of it at least.

    Normalisation may first turn one character into many (U+FDFA, of 3 bytes, into 33); ASCII stays as it is.
    """
    return len(text.encode()) * (1 if text.isascii() else GROWTH) + MARKS


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
        batch_size=way.batch_size,
    )


# Each tower is loaded by itself, so that the other one's weights can go as soon as it is built.


def _image_of(blueprint: Blueprint) -> "Callable[[], nn.Module]":
    return lambda: blueprint.load().image


def _text_of(blueprint: Blueprint) -> "Callable[[], nn.Module]":
    return lambda: blueprint.load().text
