"""What smaller vectors cost: how many of the ten nearest stay, measured on a sample of what is added."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from crossmodal.encoders.base import Embeddings, Encoder, Pixels
from crossmodal.encoders.prefix import PrefixEncoder
from crossmodal.index import FaissIndex, Storage
from crossmodal.types import ImageLike, Modality

NEAREST = 10
PICTURES = 4000
QUERIES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """The share of the ``NEAREST`` pictures that smaller vectors and whole ones in float32 have in common.

    ``queries`` of ``modality`` were asked of ``pictures``; on more pictures it would be a little less.
    """

    share: float
    queries: int
    modality: Modality
    pictures: int
    storage: Storage
    dim: int
    whole_dim: int

    def to_dict(self) -> dict[str, Any]:
        """Give the figures as plain values for JSON."""
        return asdict(self)


class Witness(Encoder):
    """An encoder that passes on what another one gives, and keeps a sample of its whole embeddings.

    The sample is even over all that was embedded, made from a seed, and bounded whatever comes.
    """

    def __init__(self, encoder: Encoder, storage: Storage, seed: int = 0) -> None:
        self.card = encoder.card
        self.batch_size = encoder.batch_size
        self._storage = storage
        self._encoder = encoder
        self._prefix = encoder if isinstance(encoder, PrefixEncoder) else None
        self._whole = encoder.whole if isinstance(encoder, PrefixEncoder) else encoder
        rng = np.random.default_rng(seed)
        self._pictures, self._texts = _Reservoir(PICTURES + QUERIES, rng), _Reservoir(QUERIES, rng)
        self._watches = storage != "float32" or self._prefix is not None

    def prepare_image(self, image: ImageLike) -> Pixels:
        """Decode and fit one picture as the encoder does."""
        return self._encoder.prepare_image(image)

    def embed_pixels(self, pixels: Pixels) -> Embeddings:
        """Embed prepared pictures as the encoder does."""
        return self._seen(self._whole.embed_pixels(pixels), self._pictures)

    def texts_cut(self, texts: Sequence[str]) -> int:
        """Count the texts that are too long for the encoder."""
        return self._encoder.texts_cut(texts)

    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        """Embed texts as the encoder does."""
        return self._seen(self._whole.embed_texts(texts), self._texts)

    def measure(self) -> Agreement | None:
        """Compare the small vectors with the whole ones; None where nothing is smaller, or too few came."""
        pictures, queries, modality = self._pictures.rows, self._texts.rows, "text"
        if not len(queries):
            # Pictures that ask are not among those that answer: each would find itself, whatever is lost.
            asking = min(QUERIES, len(pictures) // 10)
            queries, pictures, modality = pictures[:asking], pictures[asking:], "image"
        pictures = pictures[:PICTURES]
        if not self._watches or not len(queries) or len(pictures) <= NEAREST:
            return None
        whole = _nearest(FaissIndex(self._whole.card.dim, gpus="none"), pictures, queries)
        small_index = FaissIndex(self.card.dim, gpus="none", storage=self._storage)
        small = _nearest(small_index, self._cut(pictures), self._cut(queries))
        common = [len(np.intersect1d(a, b)) for a, b in zip(whole, small, strict=True)]
        return Agreement(
            share=float(np.mean(common)) / NEAREST,
            queries=len(queries),
            modality="text" if modality == "text" else "image",
            pictures=len(pictures),
            storage=self._storage,
            dim=self.card.dim,
            whole_dim=self._whole.card.dim,
        )

    def _seen(self, embeddings: Embeddings, sample: "_Reservoir") -> Embeddings:
        if self._watches:
            sample.offer(embeddings)
        return self._cut(embeddings)

    def _cut(self, embeddings: Embeddings) -> Embeddings:
        return embeddings if self._prefix is None else self._prefix.cut(embeddings)


class _Reservoir:
    """An even sample of all rows offered (Vitter's algorithm R, 1985), in a random order once it is full."""

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self._size = size
        self._rng = rng
        self._offered = 0
        self._rows: list[Embeddings] = []

    @property
    def rows(self) -> Embeddings:
        """The sample: (n, D)."""
        return np.stack(self._rows) if self._rows else np.empty((0, 0), np.float32)

    def offer(self, rows: Embeddings) -> None:
        """Let each row take its chance."""
        for row in rows:
            self._offered += 1
            place = int(self._rng.integers(self._offered))
            if len(self._rows) < self._size:
                # In at a random place, so that any first rows of the sample are a sample of it.
                self._rows.append(row.copy())
                self._rows[place], self._rows[-1] = self._rows[-1], self._rows[place]
            elif place < self._size:
                self._rows[place] = row.copy()


def _nearest(index: FaissIndex, pictures: Embeddings, queries: Embeddings) -> Any:
    """Give the places of the ``NEAREST`` pictures of each query: int64 (Q, NEAREST)."""
    index.add(np.arange(len(pictures)), pictures)
    return index.search(queries, NEAREST)[1]
