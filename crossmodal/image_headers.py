"""What a picture file is and how large it will become, told from its first bytes before PIL sees it.

What a file is, its content says, never its name. Only the formats of ``FORMATS`` are opened: none of them
starts a program, and each says in its header how many pixels it holds.
"""

import struct
from collections.abc import Iterator
from typing import IO

from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.IcoImagePlugin import IcoImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

FORMATS: tuple[tuple[int, bytes, type[ImageFile]], ...] = (
    # where in the file, what stands there, what reads it
    (0, b"\xff\xd8\xff", JpegImageFile),  # a multi-picture JPEG (MPO) too: its first picture
    (0, b"\x89PNG\r\n\x1a\n", PngImageFile),
    (8, b"WEBPVP8", WebPImageFile),
    (0, b"GIF87a", GifImageFile),
    (0, b"GIF89a", GifImageFile),
    (0, b"II*\0", TiffImageFile),
    (0, b"MM\0*", TiffImageFile),
    (0, b"II+\0", TiffImageFile),
    (0, b"MM\0+", TiffImageFile),
    (0, b"BM", BmpImageFile),
    (4, b"ftypavif", AvifImageFile),
    (4, b"ftypavis", AvifImageFile),
    (0, b"\0\0\1\0", IcoImageFile),
    *((0, b"P%d%c" % (kind, space), PpmImageFile) for kind in range(1, 7) for space in b" \t\r\n"),
)
_EXPECTED = "expected JPEG, PNG, WebP, GIF, TIFF, BMP, AVIF, ICO or PPM"

_OTHERS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"%PDF", "a PDF document"),
    (0, b"%!PS", "a PostScript document"),
    (4, b"ftyphe", "a HEIC picture"),
    (4, b"ftypmif1", "a HEIF picture"),
    (4, b"ftyp", "a video"),
    (0, b"\x1a\x45\xdf\xa3", "a video"),
    (8, b"AVI ", "a video"),
    (0, b"\xff\x0a", "a JPEG XL picture"),
    (4, b"JXL ", "a JPEG XL picture"),
    (4, b"jP  ", "a JPEG 2000 picture"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"PK\3\4", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"version https://git-lfs", "a Git LFS pointer in the picture's place (`git lfs pull` fetches it)"),
)


def format_of(head: bytes) -> type[ImageFile] | None:
    """Say which PIL plugin reads a file that begins so; None where none of ``FORMATS`` does."""
    return next((plugin for at, magic, plugin in FORMATS if head.startswith(magic, at)), None)


def what_else(head: bytes) -> str:
    """Say what a file looks like that is no picture, and what was expected."""
    if not head:
        return f"an empty file; {_EXPECTED}"
    looks = next((what for at, magic, what in _OTHERS if head.startswith(magic, at)), None)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if looks is None and b"<svg" in text:
        looks = "an SVG drawing"
    if looks is None and text.startswith((b"<!doctype html", b"<html")):
        looks = "an HTML page"
    if looks is None and not set(head) & set(range(9)):
        looks = "text"
    return f"looks like {looks}; {_EXPECTED}" if looks else f"begins with {head[:8].hex(' ')}; {_EXPECTED}"


def early_sizes(plugin: type[ImageFile], file: IO[bytes]) -> Iterator[tuple[int, int]]:
    """Read the (width, height) of what the plugin would make room for as soon as it opens the file."""
    file.seek(0)
    if plugin is WebPImageFile:
        yield _webp_size(file.read(30))
    if plugin is IcoImageFile:
        yield from _icon_sizes(file)


def _webp_size(head: bytes) -> tuple[int, int]:
    kind, body = head[12:16], head[20:30]
    if kind == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack("<HH", body[6:10])
    return width & 0x3FFF, height & 0x3FFF


def _icon_sizes(file: IO[bytes]) -> Iterator[tuple[int, int]]:
    # Each picture of an icon is a PNG, or a bitmap with its mask below it.
    file.seek(4)
    (count,) = struct.unpack("<H", file.read(2))
    directory = file.read(16 * count)
    for (offset,) in struct.iter_unpack("<12xI", directory):
        file.seek(offset)
        head = file.read(24)
        if head.startswith(b"\x89PNG"):
            yield struct.unpack(">II", head[16:])
        else:
            width, height = struct.unpack("<ii", head[4:12])
            yield abs(width), abs(height)
