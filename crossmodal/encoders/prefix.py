"""The first dimensions of an encoder's embeddings, which serve by themselves where it was trained so."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from crossmodal.encoders.base import Embeddings, Encoder, Pixels
from crossmodal.errors import EncoderError
from crossmodal.types import ImageLike


class PrefixEncoder(Encoder):
    """The first ``dim`` dimensions of another encoder, ``whole``, made of length 1 again.

    An encoder trained for it loses little (Kusupati et al., "Matryoshka Representation Learning", NeurIPS
    2022); any may be cut. The card's name is that of ``whole``; its fingerprint says also how long the prefix
    is.

    :raises EncoderError: when ``dim`` is below 1 or above what ``whole`` has.
    """

    def __init__(self, whole: Encoder, dim: int) -> None:
        card = whole.card
        if not 1 <= dim <= card.dim:
            raise EncoderError(
                f"{dim} dimensions of {card.name} are asked for, which has {card.dim}; give 1 to {card.dim}"
            )
        self.whole = whole
        self.card = replace(card, dim=dim, fingerprint=f"{card.fingerprint}+{dim}")
        self.batch_size = whole.batch_size
        self.device = whole.device

    def prepare_image(self, image: ImageLike) -> Pixels:
        """Decode and fit one picture as the whole encoder does: uint8 (H, W, 3).

        :raises ImageError: when it is no picture, is broken or is too large.
        """
        return self.whole.prepare_image(image)

    def embed_pixels(self, pixels: Pixels) -> Embeddings:
        """Embed prepared pictures: uint8 (B, H, W, 3) to float32 (B, dim), rows L2-normalised."""
        return self.cut(self.whole.embed_pixels(pixels))

    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        """Embed texts: float32 (M, dim), rows L2-normalised.

        :raises EncoderError: when something among them is no text.
        """
        return self.cut(self.whole.embed_texts(texts))

    def texts_cut(self, texts: Sequence[str]) -> int:
        """Count the texts that are longer than ``card.text_limit`` tokens and so are cut."""
        return self.whole.texts_cut(texts)

    def keep(self, folder: Path) -> None:
        """Write into a folder what of the whole encoder could not be made again.

        :raises OSError: when the disk refuses.
        """
        self.whole.keep(folder)

    def cut(self, embeddings: Embeddings) -> Embeddings:
        """Give the prefix of embeddings of ``whole``, float32 (N, dim), rows L2-normalised.

        :raises EncoderError: when there is nothing but noughts in it.
        """
        prefix = embeddings[:, : self.card.dim]
        lengths = np.linalg.norm(prefix, axis=1, keepdims=True)
        if not lengths.all():
            raise EncoderError(
                f"An embedding of {self.card.name} is nought in its first {self.card.dim} dimensions; "
                "take more of them"
            )
        cut: Embeddings = prefix / lengths
        return cut
