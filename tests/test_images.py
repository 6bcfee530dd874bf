"""What a picture becomes: upright, RGB, on white, whatever it was."""

import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile

from crossmodal.errors import ImageError
from crossmodal.images import IMAGE_SUFFIXES, load_image

WHITE = (255, 255, 255)
TURNED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


def noise(height: int = 6, width: int = 9, channels: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(7).integers(0, 256, (height, width, channels), dtype=np.uint8)


def file_bytes(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def pixels(source: object, **options: int) -> NDArray[np.int64]:
    image = load_image(source, **options)
    assert image.mode == "RGB"
    return np.asarray(image).astype(np.int64)


def png(
    size: tuple[int, int], depth: int, colour: int, rows: bytes, transparent: bytes | None = None
) -> bytes:
    """Write a PNG by hand: PIL writes few of the kinds there are."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0))
    tail = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return (
        b"\x89PNG\r\n\x1a\n" + header + (b"" if transparent is None else chunk(b"tRNS", transparent)) + tail
    )


def on_white(rgba: NDArray[np.uint8]) -> NDArray[np.float64]:
    alpha = rgba[..., 3:] / 255
    return rgba[..., :3] * alpha + 255 * (1 - alpha)


class TestSources:
    def test_a_path_a_file_s_bytes_a_pil_image_and_an_array_give_the_same_pixels(
        self, tmp_path: Path
    ) -> None:
        array = noise()
        path = tmp_path / "a picture.png"
        Image.fromarray(array).save(path)
        sources = [path, str(path), path.read_bytes(), bytearray(path.read_bytes()), Image.open(path), array]
        for source in sources:
            np.testing.assert_array_equal(pixels(source), array)

    def test_an_array_may_be_grey_or_have_alpha_or_be_a_view(self) -> None:
        rgba = noise(channels=4)
        np.testing.assert_array_equal(pixels(rgba[..., 0]), np.repeat(rgba[..., :1], 3, axis=2))
        np.testing.assert_allclose(pixels(rgba), on_white(rgba), atol=1)
        np.testing.assert_array_equal(pixels(rgba[::2, ::-1, :3]), rgba[::2, ::-1, :3])

    def test_a_file_is_read_by_its_content_not_its_name(self, tmp_path: Path) -> None:
        path = tmp_path / "really_a_png.jpg"
        path.write_bytes(file_bytes(Image.fromarray(noise()), "PNG"))
        np.testing.assert_array_equal(pixels(path), noise())

    def test_a_given_pil_image_is_left_as_it_was(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        given = Image.open(io.BytesIO(file_bytes(Image.fromarray(noise(channels=4)), "PNG", exif=exif)))
        before = np.asarray(given).copy()
        load_image(given)
        np.testing.assert_array_equal(np.asarray(given), before)
        assert given.mode == "RGBA"
        assert given.getexif()[0x0112] == 6

    def test_an_upright_rgb_pil_image_comes_back_itself(self) -> None:
        given = Image.fromarray(noise())
        assert load_image(given) is given

    @pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "GIF", "WEBP", "AVIF", "ICO", "JPEG"])
    def test_every_format_is_read(self, kind: str) -> None:
        image = Image.new("RGB", (32, 16), (200, 40, 90))
        options = {"sizes": [(32, 16)]} if kind == "ICO" else {}
        got = pixels(file_bytes(image, kind, **options))
        assert got.shape == (16, 32, 3)
        np.testing.assert_allclose(got, np.full((16, 32, 3), (200, 40, 90)), atol=8)

    def test_every_suffix_of_a_folder_s_pictures_is_lower_case_and_known_to_pil(self) -> None:
        Image.init()
        assert set(Image.EXTENSION) >= IMAGE_SUFFIXES
        assert all(suffix == suffix.lower() for suffix in IMAGE_SUFFIXES)

    def test_threads_get_what_one_after_the_other_gives(self, tmp_path: Path) -> None:
        paths = []
        for i, kind in enumerate(["jpg", "png", "webp", "tiff", "gif"] * 6):
            paths.append(tmp_path / f"{i}.{kind}")
            Image.fromarray(np.roll(noise(40, 60), i, axis=1)).save(paths[-1])
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(pixels, paths))
        for path, got in zip(paths, together, strict=True):
            np.testing.assert_array_equal(got, pixels(path))


class TestOrientation:
    @pytest.mark.parametrize("orientation", TURNED)
    @pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
    def test_exif_orientation_is_applied(self, kind: str, orientation: int) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options = {"lossless": True} if kind == "WEBP" else {}
        data = file_bytes(Image.fromarray(noise()), kind, exif=exif, **options)
        np.testing.assert_array_equal(pixels(data), TURNED[orientation](noise()))
        np.testing.assert_array_equal(pixels(Image.open(io.BytesIO(data))), TURNED[orientation](noise()))

    @pytest.mark.parametrize("orientation", TURNED)
    def test_a_jpeg_is_turned_after_it_was_decoded_small(self, orientation: int) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        quarters = np.kron(np.array([[10, 90], [170, 250]], np.uint8), np.ones((32, 64), np.uint8))
        got = pixels(file_bytes(Image.fromarray(quarters), "JPEG", exif=exif), at_least=16)
        want = TURNED[orientation](quarters[::4, ::4])
        assert got.shape == (*want.shape, 3)
        np.testing.assert_allclose(got, np.repeat(want[..., None], 3, axis=2), atol=12)

    def test_what_was_turned_once_is_not_turned_again(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        once = load_image(file_bytes(Image.fromarray(noise()), "PNG", exif=exif))
        np.testing.assert_array_equal(pixels(load_image(once)), pixels(once))

    @pytest.mark.parametrize(
        "block", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\0\x09\x01\x12", b"Exif\0\0"]
    )
    def test_an_exif_block_that_cannot_be_read_leaves_the_picture_upright(self, block: bytes) -> None:
        assert pixels(file_bytes(Image.fromarray(noise()), "JPEG", exif=block)).shape == (6, 9, 3)

    def test_an_orientation_that_means_nothing_is_upright(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 77
        data = file_bytes(Image.fromarray(noise()), "PNG", exif=exif)
        np.testing.assert_array_equal(pixels(data), noise())


class TestTransparency:
    @pytest.mark.parametrize("kind", ["PNG", "TIFF"])
    def test_alpha_is_composited_on_white(self, kind: str) -> None:
        rgba = noise(channels=4)
        np.testing.assert_allclose(pixels(file_bytes(Image.fromarray(rgba), kind)), on_white(rgba), atol=1)

    def test_alpha_of_a_lossless_webp_is_composited_on_white(self) -> None:
        rgba = noise(channels=4)
        data = file_bytes(Image.fromarray(rgba), "WEBP", lossless=True, exact=True)
        np.testing.assert_allclose(pixels(data), on_white(rgba), atol=1)

    @pytest.mark.parametrize("mode", ["LA", "PA", "RGBa"])
    def test_grey_palette_and_premultiplied_alpha_are_composited_on_white(self, mode: str) -> None:
        rgba = np.zeros((1, 3, 4), np.uint8)
        rgba[0, :, 3] = 0, 128, 255
        image = Image.fromarray(rgba)
        np.testing.assert_allclose(pixels(image.convert(mode))[0, :, 0], [255, 127, 0], atol=1)

    def test_a_palette_with_transparency_by_bytes_or_by_one_index(self) -> None:
        image = Image.new("P", (3, 1))
        image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
        for x in range(3):
            image.putpixel((x, 0), x)
        half = file_bytes(image, "PNG", transparency=bytes([0, 128, 255]))
        np.testing.assert_allclose(pixels(half)[0], [WHITE, (127, 255, 127), (0, 0, 255)], atol=1)
        one = file_bytes(image, "GIF", transparency=1)
        np.testing.assert_array_equal(pixels(one)[0], [(255, 0, 0), WHITE, (0, 0, 255)])

    @pytest.mark.parametrize(
        ("depth", "row", "transparent", "greys"),
        [
            (1, b"\x40", 0, [255, 255]),
            (2, b"\x60", 1, [255, 170]),
            (4, b"\x2f", 2, [255, 255]),
            (4, b"\x2f", 15, [34, 255]),
            (8, b"\x11\x80", 0x11, [255, 128]),
            (16, b"\x11\x22\x80\x80", 0x1122, [255, 128]),
            (16, b"\x11\x22\x80\x80", 0x11, [17, 128]),
        ],
    )
    def test_one_transparent_grey_at_every_depth(
        self, depth: int, row: bytes, transparent: int, greys: list[int]
    ) -> None:
        data = png((2, 1), depth, 0, b"\0" + row, struct.pack(">H", transparent))
        np.testing.assert_array_equal(pixels(data)[0, :, 0], greys)

    @pytest.mark.parametrize("depth", [8, 16])
    def test_one_transparent_colour(self, depth: int) -> None:
        code = ">BBB" if depth == 8 else ">HHH"
        seen, kept = (0x21, 0x43, 0x65), (0x21, 0x43, 0x66)
        scale = 1 if depth == 8 else 257
        row = b"".join(struct.pack(code, *(v * scale for v in colour)) for colour in (seen, kept))
        transparent = struct.pack(">HHH", *(v * scale for v in seen))
        np.testing.assert_array_equal(
            pixels(png((2, 1), depth, 2, b"\0" + row, transparent))[0], [WHITE, kept]
        )


class TestColours:
    def test_black_and_white_and_grey(self) -> None:
        bits = noise()[..., 0] > 127
        for kind in ("PNG", "TIFF", "PPM", "BMP"):
            got = pixels(file_bytes(Image.fromarray(bits), kind))
            np.testing.assert_array_equal(got, np.repeat(bits[..., None] * 255, 3, axis=2))
        np.testing.assert_array_equal(
            pixels(file_bytes(Image.fromarray(noise()[..., 0]), "PNG"))[..., 1], noise()[..., 0]
        )

    @pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
    @pytest.mark.parametrize(
        ("ink", "colour"),
        [((0, 255, 255, 0), (255, 0, 0)), ((255, 0, 0, 0), (0, 255, 255)), ((0, 0, 0, 200), (55, 55, 55))],
    )
    def test_cmyk_and_adobe_s_inverted_cmyk_jpeg(
        self, kind: str, ink: tuple[int, ...], colour: tuple[int, ...]
    ) -> None:
        data = file_bytes(Image.new("CMYK", (16, 16), ink), kind)
        assert (b"Adobe" in data) == (kind == "JPEG")
        np.testing.assert_allclose(
            pixels(data, at_least=4), np.full_like(pixels(data, at_least=4), colour), atol=3
        )

    def test_ycck_jpeg(self) -> None:
        inks = Image.new("CMYK", (16, 16), (155, 127, 127, 0))
        data = bytearray(file_bytes(inks, "JPEG", quality=100))
        # The same numbers, inverted as Adobe does, now read as luma 100 without chroma or black: cyan,
        # magenta and yellow are all 100 of 255.
        data[data.index(b"Adobe") + 11] = 2
        np.testing.assert_allclose(pixels(bytes(data)), np.full((16, 16, 3), 155), atol=2)

    def test_16_bit_grey_is_scaled_and_not_clipped(self, tmp_path: Path) -> None:
        values = np.linspace(0, 65535, 600).astype(np.uint16).reshape(20, 30)
        want = np.rint(values / 257)
        big_endian = png((30, 20), 16, 0, b"".join(b"\0" + row.astype(">u2").tobytes() for row in values))
        pgm = b"P5\n30 20\n65535\n" + values.astype(">u2").tobytes()
        for data in (big_endian, pgm, file_bytes(Image.fromarray(values), "TIFF"), Image.fromarray(values)):
            np.testing.assert_array_equal(pixels(data)[..., 0], want)

    def test_a_dark_16_bit_picture_stays_dark(self) -> None:
        values = np.full((4, 4), 200, np.uint16)
        for data in (
            file_bytes(Image.fromarray(values), "PNG"),
            b"P5\n4 4\n65535\n" + values.astype(">u2").tobytes(),
        ):
            assert pixels(data).max() == 1

    @pytest.mark.parametrize(
        ("values", "greys"),
        [
            (np.array([[0, 7, 255]], np.int32), [0, 7, 255]),
            (np.array([[-100, 0, 100]], np.int32), [0, 128, 255]),
            (np.array([[0, 50_000, 100_000]], np.int32), [0, 128, 255]),
            (np.array([[0, 0.5, 1]], np.float32), [0, 128, 255]),
            (np.array([[0, 7, 200]], np.float32), [0, 7, 200]),
            (np.array([[-1, 0, 1]], np.float32), [0, 128, 255]),
            (np.array([[np.nan, 0.2, 1]], np.float32), [0, 51, 255]),
            (np.array([[-3e38, 0, 3e38]], np.float32), [0, 128, 255]),
            (np.array([[-5, -5, -5]], np.float32), [0, 0, 0]),
        ],
    )
    def test_32_bit_integers_and_floats(self, values: NDArray[np.generic], greys: list[int]) -> None:
        np.testing.assert_array_equal(pixels(file_bytes(Image.fromarray(values), "TIFF"))[0, :, 0], greys)

    def test_a_wide_gamut_profile_leaves_the_numbers_alone(self) -> None:
        from PIL import ImageCms

        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
        data = file_bytes(Image.fromarray(noise()), "PNG", icc_profile=profile)
        np.testing.assert_array_equal(pixels(data), noise())


class TestFrames:
    @pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "MPO", "AVIF"])
    def test_the_first_frame_of_several_is_taken(self, kind: str) -> None:
        frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
        data = file_bytes(frames[0], kind, save_all=True, append_images=frames[1:])
        assert Image.open(io.BytesIO(data)).n_frames == 3
        np.testing.assert_allclose(pixels(data), np.full((16, 16, 3), (255, 0, 0)), atol=3)


class TestScale:
    @pytest.mark.parametrize(
        ("size", "at_least", "decoded"),
        [
            ((640, 480), 224, (320, 240)),
            ((640, 480), 240, (320, 240)),
            ((640, 480), 241, (640, 480)),
            ((480, 640), 224, (240, 320)),
            ((641, 481), 60, (81, 61)),
            ((641, 481), 1, (81, 61)),
            ((100, 80), 500, (100, 80)),
            ((640, 480), None, (640, 480)),
        ],
    )
    def test_a_jpeg_is_decoded_at_the_smallest_scale_that_is_large_enough(
        self, size: tuple[int, int], at_least: int | None, decoded: tuple[int, int]
    ) -> None:
        for options in ({}, {"progressive": True}):
            data = file_bytes(Image.new("RGB", size, "teal"), "JPEG", **options)
            assert load_image(data, at_least=at_least).size == decoded

    def test_a_jpeg_decoded_small_shows_the_means_of_its_blocks(self) -> None:
        smooth = Image.fromarray(noise(8, 8)).resize((128, 128), Image.Resampling.BICUBIC)
        data = file_bytes(smooth, "JPEG", quality=95, subsampling=0)
        blocks = pixels(data).reshape(32, 4, 32, 4, 3).mean(axis=(1, 3))
        assert np.abs(pixels(data, at_least=32) - blocks).mean() < 2

    def test_another_format_is_decoded_as_it_is(self) -> None:
        assert load_image(file_bytes(Image.new("RGB", (64, 48)), "PNG"), at_least=8).size == (64, 48)

    def test_what_is_decoded_counts_and_not_what_the_file_could_give(self) -> None:
        data = file_bytes(Image.new("RGB", (800, 800)), "JPEG")
        assert load_image(data, at_least=100, max_pixels=10_000).size == (100, 100)


class TestManners:
    def test_headers_with_oddities_raise_no_warning(self) -> None:
        block = b"Exif\0\0MM\0*\0\0\0\x08\0\x03\x01\x0f\0\x02\0\0\0\x40\0\0\xff\xff"
        data = file_bytes(Image.fromarray(noise()), "JPEG", exif=block)
        with warnings.catch_warnings(record=True) as heard:
            load_image(data)
        assert not heard
        with pytest.warns(UserWarning, match="Truncated"):
            Image.open(io.BytesIO(data)).getexif()

    def test_pil_s_settings_are_left_alone_and_its_limit_does_not_bind_us(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert load_image(file_bytes(Image.fromarray(noise()), "PNG")).size == (9, 6)
        assert Image.MAX_IMAGE_PIXELS == 10
        assert ImageFile.LOAD_TRUNCATED_IMAGES is False

    @pytest.mark.skipif(
        not Path("/proc/self/fd").is_dir(), reason="counts open files in /proc, which only Linux has"
    )
    def test_files_are_closed_again_read_or_refused(self, tmp_path: Path) -> None:
        for kind in ("gif", "tiff", "webp", "jpg"):
            Image.fromarray(noise()).save(tmp_path / f"good.{kind}")
        (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
        before = len(list(Path("/proc/self/fd").iterdir()))
        kept = []
        for path in sorted(tmp_path.iterdir()):
            if path.stem == "good":
                kept.append(load_image(path))
            else:
                with pytest.raises(ImageError, match="bad"):
                    load_image(path)
        assert len(list(Path("/proc/self/fd").iterdir())) == before
