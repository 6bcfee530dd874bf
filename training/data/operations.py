"""The operations of RandAugment and TrivialAugment: torchvision's functions over torchvision's ranges.

torchvision's own classes draw from torch's one generator, which threads would share; here the caller's draws.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import functional as ops

BINS = 31
"""Magnitudes go from 0 to 30, as in both papers."""

GREY = [128, 128, 128]
"""What fills the corners that a turned or shifted picture leaves."""

Operation = Callable[[Image.Image, float], Image.Image]


@dataclass(frozen=True, slots=True)
class Entry:
    """An operation, and its value at each magnitude; with ``signed``, chance may turn that negative."""

    run: Operation
    values: tuple[float, ...] = (0.0,)
    signed: bool = False

    def __call__(self, image: Image.Image, magnitude: int, chance: np.random.Generator) -> Image.Image:
        """Change a picture; an operation without magnitudes does the same at each."""
        value = self.values[magnitude % len(self.values)]
        if self.signed and chance.integers(2):
            value = -value
        return self.run(image, value)


def randaugment(image: Image.Image, count: int, magnitude: int, chance: np.random.Generator) -> Image.Image:
    """Apply ``count`` operations drawn from fourteen (Cubuk et al. 2020, https://arxiv.org/abs/1909.13719)."""
    height, width = image.height, image.width
    shifts = 150 / 331 * width, 150 / 331 * height
    entries = _entries(shear=0.3, shifts=shifts, turn=30.0, colour=0.9, bits=4)
    for _ in range(count):
        image = entries[chance.integers(len(entries))](image, magnitude, chance)
    return image


def trivialaugment(image: Image.Image, chance: np.random.Generator) -> Image.Image:
    """Apply one operation at any magnitude (Müller and Hutter 2021, https://arxiv.org/abs/2103.10158)."""
    entries = _entries(shear=0.99, shifts=(32.0, 32.0), turn=135.0, colour=0.99, bits=6)
    entry = entries[chance.integers(len(entries))]
    magnitude = int(chance.integers(BINS)) if len(entry.values) > 1 else 0
    return entry(image, magnitude, chance)


def _entries(
    *, shear: float, shifts: tuple[float, float], turn: float, colour: float, bits: int
) -> list[Entry]:
    """Give the fourteen operations, in torchvision's order, with the greatest value each may take."""
    return [
        Entry(lambda image, _: image),
        Entry(_shear_across, _even(shear), signed=True),
        Entry(_shear_down, _even(shear), signed=True),
        Entry(_shift_across, _even(shifts[0]), signed=True),
        Entry(_shift_down, _even(shifts[1]), signed=True),
        Entry(lambda image, degrees: ops.rotate(image, degrees, fill=GREY), _even(turn), signed=True),
        Entry(lambda image, more: ops.adjust_brightness(image, 1 + more), _even(colour), signed=True),
        Entry(lambda image, more: ops.adjust_saturation(image, 1 + more), _even(colour), signed=True),
        Entry(lambda image, more: ops.adjust_contrast(image, 1 + more), _even(colour), signed=True),
        Entry(lambda image, more: ops.adjust_sharpness(image, 1 + more), _even(colour), signed=True),
        Entry(lambda image, kept: ops.posterize(image, int(kept)), _bits(bits)),
        Entry(ops.solarize, tuple(torch.linspace(255, 0, BINS).tolist())),
        Entry(lambda image, _: ops.autocontrast(image)),
        Entry(lambda image, _: ops.equalize(image)),
    ]


def _even(most: float) -> tuple[float, ...]:
    return tuple(torch.linspace(0, most, BINS).tolist())


def _bits(fewer: int) -> tuple[float, ...]:
    """Give the bits that are kept of each colour, at most ``fewer`` less than all."""
    return tuple((8 - np.round(np.arange(BINS) / ((BINS - 1) / fewer))).tolist())


def _shear_across(image: Image.Image, value: float) -> Image.Image:
    return _affine(image, shear=[math.degrees(math.atan(value)), 0.0], center=[0, 0])


def _shear_down(image: Image.Image, value: float) -> Image.Image:
    return _affine(image, shear=[0.0, math.degrees(math.atan(value))], center=[0, 0])


def _shift_across(image: Image.Image, value: float) -> Image.Image:
    return _affine(image, translate=[int(value), 0])


def _shift_down(image: Image.Image, value: float) -> Image.Image:
    return _affine(image, translate=[0, int(value)])


def _affine(
    image: Image.Image,
    *,
    translate: list[int] | None = None,
    shear: list[float] | None = None,
    center: list[int] | None = None,
) -> Image.Image:
    moved: Image.Image = ops.affine(
        image, 0.0, translate or [0, 0], 1.0, shear or [0.0, 0.0], fill=GREY, center=center
    )
    return moved
