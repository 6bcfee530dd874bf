"""Any picture people hold becomes an upright RGB image, and that the square of pixels a tower wants.

Files come from strangers: how large a picture would become is known before anything is decoded, and what is
wrong with it is told in one line. Colour profiles are ignored, as they were when the towers were trained.
"""

import io
import os
import re
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from crossmodal.errors import ImageError, unknown
from crossmodal.image_headers import early_sizes, format_of, what_else
from crossmodal.types import ImageLike

MAX_PIXELS = 2**30 // 12
"""The most pixels decoded unless the caller says otherwise: 89 million, where PIL starts to warn as well."""

IMAGE_SUFFIXES = frozenset(
    {
        ".avif",
        ".bmp",
        ".gif",
        ".ico",
        ".jfif",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".pbm",
        ".pgm",
        ".png",
        ".pnm",
        ".ppm",
    }
    | {".tif", ".tiff", ".webp"}
)
"""The suffixes, in lower case, by which pictures are known in a folder."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture upright, by its EXIF orientation; 1 is upright, and other values mean nothing."""

_HEADER_WARNINGS = r"PIL\.(Ico|Png|Tiff)ImagePlugin$"


def load_image(
    source: ImageLike, *, at_least: int | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Give a picture upright and in RGB, its transparency on white; of an animation the first frame.

    ``source`` is a path, the bytes of a file, a PIL image, or uint8 pixels (H, W, 3), (H, W, 4) or (H, W).
    With ``at_least``, a JPEG is decoded at the smallest of 1/8, 1/4, 1/2 and 1/1 of its size at which its
    shorter side still has that many pixels. ``max_pixels`` limits what is decoded. A PIL image that is RGB
    and upright comes back itself.

    :raises ImageError: when it is no picture, is broken or is too large; the message names it.
    """
    if at_least is not None and at_least < 1:
        raise ValueError(f"at_least counts pixels from 1, not {at_least}")
    _hush_header_warnings()
    name = type(source).__name__
    try:
        if isinstance(source, Image.Image):
            name = "PIL image"
            with _one_line("PIL image"):
                _check_size(source.size, max_pixels)
                return _upright_rgb(source)
        if isinstance(source, np.ndarray):
            name = "pixel array"
            return _from_pixels(source, max_pixels)
        if isinstance(source, bytes | bytearray | memoryview):
            name = "image bytes"
            return _from_file(io.BytesIO(source), at_least, max_pixels)
        if isinstance(source, str | os.PathLike):
            path = os.fsdecode(source)
            name = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in path) or "''"
            with _open(path) as file:
                return _from_file(file, at_least, max_pixels)
        raise ImageError("no picture; expected a path, the bytes of a file, a PIL image or a uint8 array")
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error.__cause__


def fit_image(
    image: Image.Image,
    size: int,
    how: Literal["crop", "pad", "squash"],
    resample: Literal["bicubic", "bilinear"] = "bicubic",
    crop_fraction: float = 1.0,
    fill: tuple[int, int, int] = (255, 255, 255),
) -> NDArray[np.uint8]:
    """Bring an RGB picture to a square: uint8 (size, size, 3).

    ``crop`` resizes the shorter side to ``size / crop_fraction`` and cuts out the centre, as torchvision's
    ``Resize`` and ``CenterCrop`` do; ``pad`` resizes the longer side to ``size`` and puts the picture in the
    middle of ``fill``; ``squash`` forgets the proportions.
    """
    if how not in ("crop", "pad", "squash"):
        raise ValueError(unknown("way to fit a picture", how, ("crop", "pad", "squash")))
    if resample not in ("bicubic", "bilinear"):
        raise ValueError(unknown("resampling", resample, ("bicubic", "bilinear")))
    if image.mode != "RGB":
        raise ValueError(f"fit_image takes an RGB picture, as load_image gives it, not {image.mode}")
    method = Image.Resampling[resample.upper()]
    if how == "crop":
        return np.array(_crop(image, size, method, crop_fraction))
    if how == "squash":
        return np.array(image.resize((size, size), method))
    longer = max(image.size)
    width, height = (max(1, round(side * size / longer)) for side in image.size)
    square = Image.new("RGB", (size, size), fill)
    square.paste(image.resize((width, height), method), ((size - width) // 2, (size - height) // 2))
    return np.array(square)


def _crop(image: Image.Image, size: int, method: Image.Resampling, crop_fraction: float) -> Image.Image:
    if not 0 < crop_fraction <= 1:
        raise ValueError(f"crop_fraction is above 0 and at most 1, not {crop_fraction}")
    short = round(size / crop_fraction)
    shorter = min(image.size)
    # Sides and corners are rounded as torchvision rounds them.
    width, height = (short if side == shorter else int(short * side / shorter) for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    if max(width, height) <= 8 * short:
        return image.resize((width, height), method).crop((left, top, left + size, top + size))
    # Of a long strip only what the crop shows is resized, lest it grow to thousands of times its size first.
    # PIL takes the corners in single precision, which may change a value by 1 or 2 of 255.
    across, down = image.width / width, image.height / height
    right, bottom = min((left + size) * across, image.width), min((top + size) * down, image.height)
    return image.resize((size, size), method, (left * across, top * down, right, bottom))


def _open(path: str) -> IO[bytes]:
    if not path or "\0" in path:
        raise ImageError("no such file")
    try:
        mode = Path(path).stat().st_mode
        if stat.S_ISDIR(mode):
            raise ImageError("a directory; expected the file of a picture")
        if not stat.S_ISREG(mode):  # a pipe or a device may never end
            raise ImageError("not a regular file; expected the file of a picture")
        return Path(path).open("rb")
    except FileNotFoundError as error:
        raise ImageError("no such file") from error
    except PermissionError as error:
        raise ImageError("no permission to read it") from error
    except OSError as error:
        raise ImageError(f"cannot be opened ({error.strerror})") from error


def _from_file(file: IO[bytes], at_least: int | None, max_pixels: int) -> Image.Image:
    head = file.read(1024)
    plugin = format_of(head)
    if plugin is None:
        raise ImageError(what_else(head))
    with _one_line(str(plugin.format)):
        for size in early_sizes(plugin, file):
            _check_size(size, max_pixels)
        file.seek(0)
        # Not Image.open: it holds the size against a limit of the whole process, and that before `draft`.
        with plugin(file) as image:
            if isinstance(image, JpegImageFile):
                _draft(image, file, at_least, max_pixels)
            if isinstance(image, PngImageFile):
                _scale_transparency(image)
            if isinstance(image, TiffImageFile):  # a tile is decoded in full, however small the picture
                _check_size((image.tag_v2.get(322, 1), image.tag_v2.get(323, 1)), max_pixels)
            _check_size(image.size, max_pixels)
            return _upright_rgb(image)


def _draft(image: JpegImageFile, file: IO[bytes], at_least: int | None, max_pixels: int) -> None:
    """Have a JPEG decoded at the scale wanted, unless even that takes room for the whole of it."""
    scan_header = 8 + 2 * image.layers  # the file now stands behind the first one
    file.seek(-scan_header, os.SEEK_CUR)
    whole_in_one_scan = file.read(5)[4] == image.layers
    if "progressive" in image.info or not whole_in_one_scan:
        _check_size(image.size, max_pixels)  # coefficients wait in memory for the last scan
    length = file.seek(0, os.SEEK_END)
    if image.width * image.height > 1024 * length:  # 8 x 8 pixels take two bits at least
        seen = f"{length} bytes for {image.width} x {image.height} pixels"
        raise ImageError(f"truncated JPEG: {seen}; fetch it again")
    if at_least is not None:
        image.draft(None, (at_least, at_least))


def _scale_transparency(image: PngImageFile) -> None:
    """Bring the transparent value of a PNG to the 8 bits its pixels are decoded to, which PIL leaves out."""
    value, raw_mode = image.info.get("transparency"), image.tile[0][3] if image.tile else None
    if isinstance(value, int) and raw_mode in ("L;2", "L;4"):
        image.info["transparency"] = value * (85 if raw_mode == "L;2" else 17)
    elif isinstance(value, tuple) and raw_mode == "RGB;16B":
        image.info["transparency"] = tuple(v >> 8 for v in value)


def _from_pixels(pixels: NDArray[Any], max_pixels: int) -> Image.Image:
    shape = pixels.shape
    if pixels.dtype != np.uint8 or not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4))):
        expected = "expected uint8 of shape (H, W, 3), (H, W, 4) or (H, W)"
        raise ImageError(f"{pixels.dtype} of shape {shape}; {expected}")
    _check_size((shape[1], shape[0]), max_pixels)
    return _upright_rgb(Image.fromarray(np.ascontiguousarray(pixels)))


def _upright_rgb(image: Image.Image) -> Image.Image:
    image.load()
    turn = _UPRIGHT.get(_orientation(image))
    given = image
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _eight_bits(image)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.new("RGB", image.size, "white")
        image.paste(layer, mask=layer)
    elif image.mode != "RGB":
        image = image.convert("RGB")
    if turn is not None:
        image = image.transpose(turn)
    if image is not given:
        image.info = {}  # what it says of turns and transparency has been done
    return image


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # an EXIF block that cannot be read says nothing about the pixels
        return 1


def _eight_bits(image: Image.Image) -> Image.Image:
    """Bring wide grey values to 8 bits.

    16-bit ones by their range. Integers and floats that fit into 0 to 255 stay as they are, but floats that
    fit into 0 to 1 go from black to white; all others are stretched from their least to their greatest.
    """
    values = np.asarray(image)
    transparent = image.info.get("transparency")
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        table = np.rint(np.arange(65536) * (255 / 65535)).astype(np.uint8)
        grey = table[np.clip(values, 0, 65535)]
    else:
        scaled = np.nan_to_num(values.astype(np.float64), copy=False, posinf=0, neginf=0)
        low, high = float(scaled.min()), float(scaled.max())
        if low >= 0 and high <= 255:
            low, high = 0.0, 1.0 if image.mode == "F" and high <= 1 else 255.0
        scaled -= low
        scaled *= 255
        scaled /= high - low or 1.0
        grey = np.rint(scaled, out=scaled).astype(np.uint8)
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey)


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"holds no pixels ({width} x {height})")
    if width * height > max_pixels:
        raise ImageError(
            f"too large: {width} x {height} pixels, at most {max_pixels:,} are decoded; make it smaller"
        )


@contextmanager
def _one_line(kind: str) -> Iterator[None]:
    """Turn what PIL stumbles over in a broken picture, of no common class, into an ImageError."""
    try:
        yield
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError(f"decoding this {kind} takes more memory than there is") from error
    except Image.DecompressionBombError as error:  # a frame or a tile larger than the picture it belongs to
        raise ImageError(f"too large: a frame or tile of this {kind} is beyond what is decoded") from error
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if "truncated" in reason.lower():
            raise ImageError(f"truncated {kind}: the file ends too early; fetch it again") from error
        raise ImageError(f"broken {kind} ({reason}); fetch or export it again") from error


def _hush_header_warnings() -> None:
    """Ignore PIL's warnings of oddities in EXIF blocks and the like, which do not bear on the pixels.

    To catch them around each call would not be thread-safe. Last among the filters, this one gives way to
    whatever else is asked for. It is looked for each time because `warnings.catch_warnings` may drop it.
    """
    wanted = ("ignore", None, UserWarning, re.compile(_HEADER_WARNINGS), 0)
    if wanted not in warnings.filters:
        warnings.filterwarnings("ignore", category=UserWarning, module=_HEADER_WARNINGS, append=True)
