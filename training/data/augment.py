"""Pictures and captions changed by chance, the same again for the same seed, epoch and example."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps

from crossmodal.encoders.base import Pixels
from crossmodal.encoders.preprocessing import Preprocess
from crossmodal.images import load_image
from crossmodal.types import ImageLike
from training.data.operations import BINS, randaugment, trivialaugment

PICTURE, TEXT, DRAW, REPLACEMENT = range(4)
"""What chance decides: each has a generator of its own, so that none depends on what another drew."""

_CROP_RATIO = (3 / 4, 4 / 3)
_CROP_TRIES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentSettings:
    """How pictures and captions are changed in training; nothing is, by default.

    ``crop``: the least share of a picture's area that a random resized crop keeps; 1: no such crop.
    ``flip``: mirror every other picture; it makes "left" and every written word wrong.
    ``policy``: of colours and shapes; ``operations`` and ``magnitude`` (0 to 30) are RandAugment's.
    ``word_dropout``: the chance of each word to be left out; one word stays.
    ``templates``: texts with ``{}`` where the caption goes; ``template_share`` of the captions get one.
    """

    crop: float = 1.0
    flip: bool = False
    policy: Literal["none", "randaugment", "trivialaugment"] = "none"
    operations: int = 2
    magnitude: int = 9
    word_dropout: float = 0.0
    templates: tuple[str, ...] = ()
    template_share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop is a share above 0 and at most 1, not {self.crop}")
        if not 0 <= self.word_dropout < 1:
            raise ValueError(f"word_dropout is a share from 0 to below 1, not {self.word_dropout}")
        if not 0 <= self.template_share <= 1:
            raise ValueError(f"template_share is a share from 0 to 1, not {self.template_share}")
        if not 0 <= self.magnitude < BINS:
            raise ValueError(f"magnitude is from 0 to {BINS - 1}, not {self.magnitude}")
        for template in self.templates:
            if template.count("{}") != 1:
                raise ValueError(f"a template holds one {{}}, where the caption goes, not {template!r}")

    @property
    def changes_pictures(self) -> bool:
        """Whether a picture may look different from one epoch to the next."""
        return self.crop < 1 or self.flip or self.policy != "none"

    @property
    def changes_texts(self) -> bool:
        """Whether a caption may read different from one epoch to the next."""
        return self.word_dropout > 0 or bool(self.templates)

    def of_pictures(self) -> dict[str, Any]:
        """Give what decides how pictures are changed, for the key of a cache."""
        return {name: asdict(self)[name] for name in ("crop", "flip", "policy", "operations", "magnitude")}


def chance_of(seed: int, epoch: int, example: int, what: int) -> np.random.Generator:
    """Give the generator for one example in one epoch; ``example`` may be a number of any size."""
    return np.random.default_rng([seed, epoch, example, what])


def augment_image(
    image: ImageLike, preprocess: Preprocess, settings: AugmentSettings, chance: np.random.Generator
) -> Pixels:
    """Decode a picture, change it by chance and bring it to the tower's shape: uint8 (H, W, 3).

    :raises ImageError: when it is no picture, is broken or is too large.
    """
    height, width = preprocess.shape
    if settings.crop < 1:
        needed = math.ceil(max(height, width) / math.sqrt(settings.crop * _CROP_RATIO[0]))
        decoded = load_image(image, at_least=needed)
        box = crop_box(decoded.size, settings.crop, chance)
        fitted = decoded.resize((width, height), Image.Resampling.BICUBIC, box, reducing_gap=3.0)
    else:
        pixels = preprocess(image)
        if not settings.changes_pictures:
            return pixels
        fitted = Image.fromarray(pixels)
    if settings.flip and chance.integers(2):
        fitted = ImageOps.mirror(fitted)
    if settings.policy == "randaugment":
        fitted = randaugment(fitted, settings.operations, settings.magnitude, chance)
    elif settings.policy == "trivialaugment":
        fitted = trivialaugment(fitted, chance)
    return np.array(fitted)


def crop_box(size: tuple[int, int], least: float, chance: np.random.Generator) -> tuple[int, int, int, int]:
    """Draw the (left, top, right, bottom) of a random resized crop, as torchvision's RandomResizedCrop does.

    ``size`` is (width, height). The crop keeps ``least`` of the area or more, its sides within 3:4 and 4:3;
    of a picture too long for such a crop, the middle is taken.
    """
    width, height = size
    low, high = np.log(_CROP_RATIO)
    for _ in range(_CROP_TRIES):
        area = width * height * chance.uniform(least, 1)
        ratio = math.exp(chance.uniform(low, high))
        across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < across <= width and 0 < down <= height:
            left, top = int(chance.integers(width - across + 1)), int(chance.integers(height - down + 1))
            return left, top, left + across, top + down
    across = min(width, max(1, round(height * _CROP_RATIO[1])))
    down = min(height, max(1, round(width / _CROP_RATIO[0])))
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down


def augment_text(text: str, settings: AugmentSettings, chance: np.random.Generator) -> str:
    """Leave words out by chance, and put the rest into a template by chance."""
    if settings.word_dropout:
        text = " ".join(_some_words(text.split(), settings.word_dropout, chance))
    if settings.templates and chance.random() < settings.template_share:
        text = settings.templates[chance.integers(len(settings.templates))].replace("{}", text)
    return text


def _some_words(words: Sequence[str], dropout: float, chance: np.random.Generator) -> Sequence[str]:
    kept = chance.random(len(words)) >= dropout
    if words and not kept.any():
        kept[chance.integers(len(words))] = True
    return [word for word, stays in zip(words, kept, strict=True) if stays]
