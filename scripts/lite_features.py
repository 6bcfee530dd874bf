"""What the frozen towers of `lite` make of pictures and texts, for `train_lite.py`: computed once, and kept.

A picture is seen in several views: itself, and changed by chance, which the picture's bytes seed.
"""

import hashlib
import inspect
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from rich.progress import track
from safetensors.torch import load_file, save_file
from timm.data import ImageNetInfo
from torch import Tensor
from torch.nn import functional

from crossmodal.encoders.base import Pixels
from crossmodal.encoders.lite import model, settings, weights
from crossmodal.encoders.runtime import InputSpec, Runner, Tower, Way, run_tower
from crossmodal.encoders.tokenizer import Tokenizer
from crossmodal.images import fit_image, load_image
from crossmodal.machine import usable_processors

AHEAD = 16  # pictures drawn before the tower asks for them
WHITE = (255, 255, 255)
PINNED = str(weights.TEXT_SHA256)
"""What texts are embedded by: a cache that another model filled is not read."""


def seen(net: str) -> int:
    """Give how much a net gives for a picture: its features, then the logits."""
    return model.FEATURES[net] + model.CLASSES


def pinned(net: str) -> str:
    """Say what a net's features come from."""
    return f"{seen(net)} {weights.IMAGE_SHA256[net]} {weights.TEXT_SHA256}"


def image_net(net: str) -> Runner:
    """Give one net of the image tower without its head, run as the encoder runs it."""
    tower = Tower(
        encoder=f"{net} of lite without heads",
        modality="image",
        fingerprint=hashlib.sha256(pinned(net).encode()).hexdigest(),
        dim=seen(net),
        inputs=(InputSpec("uint8", (None, settings.IMAGE_SIZE, settings.IMAGE_SIZE, 3)),),
        build=lambda: model.ImageBackbone({net: model.load_efficientnet(net)}),
    )
    return run_tower(tower, Way(backend="openvino"))


def text_net() -> Runner:
    """Give the text tower without its head."""
    tower = Tower(
        encoder="lite without heads",
        modality="text",
        fingerprint=hashlib.sha256(PINNED.encode()).hexdigest(),
        dim=settings.DIM,
        inputs=(InputSpec("int64", (None, None)),),
        build=model.load_text_backbone,
    )
    return run_tower(tower, Way(backend="openvino"))


def embed_texts(texts: Sequence[str]) -> Tensor:
    """Embed texts without the head: (N, DIM)."""
    tokens = Tokenizer(weights.tokenizer_file, settings.TEXT_LIMIT)(texts)
    tower = text_net()
    batches = [(np.array([ids], np.int64),) for ids in tokens]
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


def see(net: str, images: Sequence[bytes], views: int) -> Tensor:
    """Give what a net sees in each picture's first views: (N, views, seen(net))."""
    tower = image_net(net)
    out = np.empty((len(images), views, seen(net)), np.float32)
    with ThreadPoolExecutor(usable_processors()) as pool:
        pixels = ahead(pool, partial(views_of, views=views), images)
        for row in track(range(len(images)), f"{net}: {len(images):,} pictures, {views} views each"):
            out[row] = tower([(next(pixels),)])[0]
    return torch.from_numpy(out)


def views_of(content: bytes, views: int) -> Pixels:
    """Draw the first views of a picture: uint8 (views, H, W, 3)."""
    chance = random.Random(content)
    picture = load_image(content)
    return np.stack([fit_view(view(picture, number, chance)) for number in range(views)])


def ahead(
    pool: ThreadPoolExecutor, work: Callable[[bytes], Pixels], items: Sequence[bytes]
) -> Iterator[Pixels]:
    """Give what ``work`` makes of each item, some of them done before they are asked for."""
    waiting: deque[Future[Pixels]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def fit_view(picture: Image.Image) -> Pixels:
    """Make a view a square as the encoder does."""
    return fit_image(picture, settings.IMAGE_SIZE, settings.FIT, settings.RESAMPLE, settings.CROP_FRACTION)


def kept(cache: Path, kind: str, by: str, contents: Sequence[bytes], make: Callable[[], Tensor]) -> Tensor:
    """Take a tensor from the cache, or make it and keep it, under what it was made from and by."""
    digest = hashlib.sha256(f"{by} {inspect.getsource(view)}".encode())
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
