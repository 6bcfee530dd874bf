"""What the frozen towers of `lite` make of pictures and texts, for `train_lite.py`: computed once, and kept.

A picture is seen in several views: itself, and changed by chance, which the picture's bytes seed.
"""

import hashlib
import inspect
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from rich.progress import track
from safetensors.torch import load_file, save_file
from timm.data import ImageNetInfo
from torch import Tensor, nn
from torch.nn import functional

from crossmodal.encoders.base import Pixels
from crossmodal.encoders.lite import model, settings, weights
from crossmodal.encoders.lite.encoder import PIXELS, TOKENS
from crossmodal.encoders.runtime import Runner, Tower, Way, run_tower
from crossmodal.encoders.tokenizer import Tokenizer
from crossmodal.images import fit_image, load_image
from crossmodal.types import Modality

WHITE = (255, 255, 255)
PINNED = f"{model.FEATURES} {weights.IMAGE_SHA256} {weights.TEXT_SHA256}"
"""What the features come from: a cache that another model filled is not read."""


class Seen(nn.Module):
    """The image backbone with its features and logits side by side, as a tower that runs anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = model.build_image_backbone()

    def forward(self, pixels: Tensor) -> Tensor:
        """Map uint8 pixels (B, H, W, 3) to (B, FEATURES + CLASSES)."""
        return torch.cat(self.backbone(pixels), dim=1)


def frozen_tower(modality: Modality) -> Runner:
    """Give one tower without its head, run as the encoder runs it."""
    image = modality == "image"
    tower = Tower(
        encoder="lite without heads",
        modality=modality,
        fingerprint=hashlib.sha256(PINNED.encode()).hexdigest(),
        dim=model.FEATURES + model.CLASSES if image else settings.DIM,
        inputs=(PIXELS,) if image else (TOKENS, TOKENS),
        build=Seen if image else model.build_text_backbone,
    )
    return run_tower(tower, Way(backend="openvino"))


def embed_texts(texts: Sequence[str]) -> Tensor:
    """Embed texts without the head: (N, DIM)."""
    tokens = Tokenizer(weights.tokenizer_file, settings.TEXT_LIMIT)(texts)
    tower = frozen_tower("text")
    batches = [(np.array([ids]), np.ones((1, len(ids)), np.int64)) for ids in tokens]
    return torch.from_numpy(np.concatenate(tower(batches)))


def view(picture: Image.Image, number: int, chance: random.Random) -> Image.Image:
    """Give one view of a picture: itself, or turned, stretched, cut and coloured by chance."""
    if number == 0:
        return picture
    if chance.random() < 0.5:
        picture = ImageOps.mirror(picture)
    if chance.random() < 0.25:
        side = settings.IMAGE_SIZE
        height = max(32, round(side * chance.uniform(0.75, 1.33)))
        picture = picture.resize((side, height), Image.Resampling.BICUBIC)
    if chance.random() < 0.5:
        picture = picture.rotate(
            chance.uniform(-20, 20), Image.Resampling.BICUBIC, expand=True, fillcolor=WHITE
        )
    if chance.random() < 0.5:
        across, down = (max(1, round(side * chance.uniform(0.7, 1))) for side in picture.size)
        left, top = chance.randint(0, picture.width - across), chance.randint(0, picture.height - down)
        picture = picture.crop((left, top, left + across, top + down))
    else:
        margins = [round(side * chance.uniform(0, 0.2)) for side in (*picture.size, *picture.size)]
        picture = ImageOps.expand(picture, tuple(margins), WHITE)
    for enhance, least, most in (
        (ImageEnhance.Brightness, 0.8, 1.15),
        (ImageEnhance.Contrast, 0.7, 1.25),
        (ImageEnhance.Color, 0.3, 1.5),
    ):
        if chance.random() < 0.5:
            picture = enhance(picture).enhance(chance.uniform(least, most))
    return picture


def see(images: Sequence[bytes], views: int) -> Tensor:
    """Give features, then logits, of each picture's first views: (N, views, FEATURES + CLASSES)."""
    tower = frozen_tower("image")
    out = []
    for content in track(images, f"{len(images):,} pictures, {views} views each"):
        chance = random.Random(content)
        picture = load_image(content)
        pixels = [fit_view(view(picture, k, chance)) for k in range(views)]
        out.append(tower([(np.stack(pixels),)])[0])
    return torch.from_numpy(np.stack(out))


def fit_view(picture: Image.Image) -> Pixels:
    """Make a view a square as the encoder does."""
    return fit_image(picture, settings.IMAGE_SIZE, settings.FIT, settings.RESAMPLE, settings.CROP_FRACTION)


def kept(cache: Path, kind: str, contents: Sequence[bytes], make: Callable[[], Tensor]) -> Tensor:
    """Take a tensor from the cache, or make it and keep it, under what it was made from and by."""
    digest = hashlib.sha256(f"{PINNED} {inspect.getsource(view)}".encode())
    for content in contents:
        digest.update(hashlib.sha256(content).digest())
    path = cache / f"{kind}-{digest.hexdigest()[:16]}.safetensors"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        save_file({kind: make()}, path)
    return load_file(path)[kind]


def embed_classes() -> Tensor:
    """Give each ImageNet class the mean embedding of four forms of its name: (CLASSES, DIM)."""
    info = ImageNetInfo()
    forms = []
    for row in range(model.CLASSES):
        names = info.index_to_description(row)
        definition = info.index_to_description(row, detailed=True).removeprefix(f"{names}: ")
        first = names.split(", ")[0]
        forms += [names, first, definition, f"a photo of a {first}"]
    return functional.normalize(embed_texts(forms).unflatten(0, (-1, 4)).mean(1), dim=1)
