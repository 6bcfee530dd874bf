"""What many tests share: a small honest encoder, and pictures made on the spot."""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crossmodal.encoders.base import Embeddings, Encoder, EncoderCard, Pixels
from crossmodal.images import fit_image, load_image
from crossmodal.types import ImageLike

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 170, 50),
    "blue": (30, 60, 220),
    "yellow": (240, 220, 40),
    "black": (10, 10, 10),
    "white": (250, 250, 250),
    "orange": (240, 140, 30),
    "purple": (130, 40, 160),
}


class ToyEncoder(Encoder):
    """Eight colours, seen or named, and eight dimensions of hashed detail that tell equals apart.

    Deterministic, the same for a picture or a text in any batch, and counts what it embedded.
    """

    def __init__(self, salt: str = "toy") -> None:
        self.salt = salt
        self.images_embedded = 0
        self.texts_embedded = 0
        self.card = EncoderCard(
            name=salt,
            dim=16,
            fingerprint=hashlib.sha256(salt.encode()).hexdigest(),
            backend="numpy",
            dtype="float32",
            image_size=8,
            text_limit=64,
        )

    def prepare_image(self, image: ImageLike) -> Pixels:
        return fit_image(load_image(image, at_least=8), 8, "squash", "bilinear")

    def embed_pixels(self, pixels: Pixels) -> Embeddings:
        self.images_embedded += len(pixels)
        return np.stack([self._embed(self._seen(p), p.tobytes()) for p in pixels])

    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        self.texts_embedded += len(texts)
        return np.stack([self._embed(self._named(t), t.encode()) for t in texts])

    def _seen(self, pixels: Pixels) -> Embeddings:
        palette = np.array(list(COLOURS.values()), np.float32)
        distance = np.linalg.norm(pixels.reshape(-1, 1, 3).astype(np.float32) - palette, axis=2)
        nearest = np.bincount(distance.argmin(axis=1), minlength=len(COLOURS))
        return (nearest / nearest.sum()).astype(np.float32)

    def _named(self, text: str) -> Embeddings:
        words = text.lower().split()
        return np.array([float(colour in words) for colour in COLOURS], np.float32)

    def _embed(self, colours: Embeddings, content: bytes) -> Embeddings:
        digest = hashlib.sha256(self.salt.encode() + content).digest()[:8]
        detail = np.frombuffer(digest, np.uint8).astype(np.float32) / 255 - 0.5
        vector = np.concatenate([colours, 0.1 * detail])
        return (vector / np.linalg.norm(vector)).astype(np.float32)


@pytest.fixture(scope="session", autouse=True)
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep compiled towers in one folder of this session, away from the user's."""
    os.environ["CROSSMODAL_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def toy_encoder() -> ToyEncoder:
    """A fresh toy encoder; its counters start at nought."""
    return ToyEncoder()


@pytest.fixture
def make_picture() -> Callable[..., Path]:
    """Write a picture of a named colour, some pixels its own: ``make_picture(path, "red", seed=3)``."""

    def make(path: Path, colour: str = "red", seed: int = 0, size: tuple[int, int] = (32, 24)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.new("RGB", size, COLOURS[colour])
        for i, byte in enumerate(hashlib.sha256(f"{colour}{seed}".encode()).digest()[:6]):
            picture.putpixel((byte % size[0], i * 4 % size[1]), (byte, 255 - byte, seed % 256))
        picture.save(path)
        return path

    return make


@pytest.fixture
def picture_folder(tmp_path: Path, make_picture: Callable[..., Path]) -> Path:
    """Eight pictures, one of each colour, each with a sidecar caption."""
    folder = tmp_path / "pictures"
    for seed, colour in enumerate(COLOURS):
        make_picture(folder / f"{colour}.png", colour, seed)
        (folder / f"{colour}.txt").write_text(f"a {colour} picture\n")
    return folder
