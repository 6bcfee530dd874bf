"""Any picture people hold becomes an upright RGB image, and that the square of pixels a tower wants."""

import io
import os
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from crossmodal.errors import ImageError
from crossmodal.types import ImageLike

MAX_PIXELS = 2**30 // 12
IMAGE_SUFFIXES = frozenset(
    {
        ".avif",
        ".bmp",
        ".gif",
        ".ico",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".pbm",
        ".pgm",
        ".png",
        ".ppm",
        ".tif",
        ".tiff",
        ".webp",
    }
)


def load_image(
    source: ImageLike, *, at_least: int | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Give the picture upright and in RGB."""
    if isinstance(source, np.ndarray):
        return Image.fromarray(source).convert("RGB")
    if isinstance(source, Image.Image):
        return ImageOps.exif_transpose(source).convert("RGB")
    name = "image bytes" if isinstance(source, bytes) else str(source)
    try:
        data = source if isinstance(source, bytes) else Path(os.fspath(source)).read_bytes()
    except FileNotFoundError as error:
        raise ImageError(f"{name}: no such file") from error
    except OSError as error:
        raise ImageError(f"{name}: {error.strerror}") from error
    try:
        with Image.open(io.BytesIO(data)) as image:
            if at_least:
                image.draft(None, (at_least, at_least))
            return ImageOps.exif_transpose(image).convert("RGB")
    except Exception as error:
        raise ImageError(f"{name}: {error}") from error


def fit_image(
    image: Image.Image,
    size: int,
    how: Literal["crop", "pad", "squash"],
    resample: Literal["bicubic", "bilinear"] = "bicubic",
    crop_fraction: float = 1.0,
) -> NDArray[np.uint8]:
    """Give the picture as uint8 (size, size, 3)."""
    method = Image.Resampling[resample.upper()]
    if how == "pad":
        return np.array(ImageOps.pad(image, (size, size), method, color="white"))
    if how == "crop":
        image = ImageOps.fit(image, (size, size), method, bleed=(1 - crop_fraction) / 2)
    return np.array(image.resize((size, size), method))
