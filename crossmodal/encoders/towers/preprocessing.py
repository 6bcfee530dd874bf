"""Pictures become pixels as timm's evaluation transform makes them, by the data config of the model."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from crossmodal.encoders.base import Pixels
from crossmodal.encoders.preprocessing import MARGIN, Preprocess, Preprocessing
from crossmodal.errors import EncoderError, unknown
from crossmodal.images import load_image
from crossmodal.types import ImageLike

_RESAMPLING = ("bicubic", "bilinear")
_MODES = ("center", "squash", "border")
_LONGEST = 8  # times as long as it must be, and a strip is resized only where the crop shows it


@dataclass(frozen=True, slots=True, kw_only=True)
class TimmPreprocessing:
    """What ``Preprocessing`` has no words for: no squares, and timm's ways of squash and border.

    Sides are those of ``size`` (height, width) divided by ``crop_fraction``: ``squash`` resizes to them and
    forgets the proportions, ``center`` until both are covered, ``border`` until the picture fits into them;
    then the centre is cut out, and ``fill`` put around what is too small.
    """

    size: tuple[int, int]
    mode: Literal["center", "squash", "border"]
    resample: Literal["bicubic", "bilinear"]
    crop_fraction: float
    fill: tuple[int, int, int] = (0, 0, 0)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of what it gives."""
        return self.size

    def __call__(self, image: ImageLike) -> Pixels:
        """Decode and fit one picture: uint8 (H, W, 3)."""
        decoded = load_image(image, at_least=MARGIN * max(self._scaled()))
        return np.array(self._cut(self._resized(decoded)))

    def to_dict(self) -> dict[str, Any]:
        """Give all that decides the pixels, as plain values for JSON."""
        return asdict(self)

    def _scaled(self) -> tuple[int, int]:
        height, width = (math.floor(side / self.crop_fraction) for side in self.size)
        return height, width

    def _resized(self, image: Image.Image) -> Image.Image:
        """Resize; sides are rounded as timm rounds them."""
        height, width = self._scaled()
        method = Image.Resampling[self.resample.upper()]
        if self.mode == "squash":
            return image.resize((width, height), method)
        ratios = image.height / height, image.width / width
        if self.mode == "center":
            image = _middle(image, ratios)
            ratios = image.height / height, image.width / width
        ratio = max(ratios) if self.mode == "border" else min(ratios)
        sides = (max(1, round(image.width / ratio)), max(1, round(image.height / ratio)))
        return image.resize(sides, method)

    def _cut(self, image: Image.Image) -> Image.Image:
        """Cut out the centre, with ``fill`` around what is smaller."""
        height, width = self.size
        if image.width < width or image.height < height:
            canvas = Image.new("RGB", (max(width, image.width), max(height, image.height)), self.fill)
            canvas.paste(image, ((canvas.width - image.width) // 2, (canvas.height - image.height) // 2))
            image = canvas
        left, top = round((image.width - width) / 2), round((image.height - height) / 2)
        return image.crop((left, top, left + width, top + height))


def preprocessing_of(data: Mapping[str, Any]) -> Preprocess:
    """Give the preprocessing that timm's data config describes (see ``timm.data.resolve_data_config``).

    :raises EncoderError: when it asks for channels, resampling or cropping that are not known here.
    """
    channels, height, width = data["input_size"]
    mode, resample, crop = data["crop_mode"], data["interpolation"], data["crop_pct"]
    if channels != 3:
        raise EncoderError(f"The image model takes {channels} channels; expected 3, for pictures in colour")
    if resample not in _RESAMPLING:
        raise EncoderError(unknown("interpolation of the image model", str(resample), _RESAMPLING))
    if mode not in _MODES:
        raise EncoderError(unknown("crop mode of the image model", str(mode), _MODES))
    short = math.floor(height / crop)
    if height == width and mode == "center" and short >= height:
        # timm rounds this side down, fit_image to the nearest: the fraction that gives timm's
        return Preprocessing(
            size=height, fit="crop", resample=resample, crop_fraction=height / short, exact=True
        )
    if height == width == short and mode == "squash":
        return Preprocessing(size=height, fit="squash", resample=resample, exact=True)
    red, green, blue = (round(255 * value) for value in data["mean"])
    fill = (red, green, blue) if mode == "border" else (0, 0, 0)
    return TimmPreprocessing(
        size=(height, width), mode=mode, resample=resample, crop_fraction=crop, fill=fill
    )


def restore_preprocessing(facts: Mapping[str, Any]) -> Preprocess:
    """Give the preprocessing that once gave these facts by ``to_dict``."""
    listed: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in facts.items()
    }
    return TimmPreprocessing(**listed) if "mode" in listed else Preprocessing(**listed)


def _middle(image: Image.Image, ratios: tuple[float, float]) -> Image.Image:
    """Cut the ends off a long strip, lest it be resized to thousands of times its size to be cropped then."""
    least = min(ratios)
    height, width = (
        min(side, math.ceil(_LONGEST * side * least / ratio))
        for side, ratio in zip((image.height, image.width), ratios, strict=True)
    )
    if (width, height) == image.size:
        return image
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
