"""What is refused as a picture: with the reason, in one line, before it costs anything."""

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from crossmodal.errors import ImageError
from crossmodal.images import MAX_PIXELS, fit_image, load_image

EXPECTED = "expected JPEG, PNG, WebP, GIF, TIFF, BMP, AVIF, ICO or PPM"


def refusal(source: object, **options: int) -> str:
    with pytest.raises(ImageError) as caught:
        load_image(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def file_bytes(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def noise(width: int = 37, height: int = 23) -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8))


def png_bomb(width: int, height: int) -> bytes:
    """Write a true PNG of black pixels, a thousand times larger than its file."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def patched(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) >= 1
    return data.replace(old, new)


def tiff_tile(width: int, height: int) -> bytes:
    """Write a grey TIFF of 16 x 16 pixels, in one LZW tile of the size given."""
    facts = {256: 16, 257: 16, 258: 8, 259: 5, 262: 1, 277: 1, 322: width, 323: height, 324: 200, 325: 50}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in facts.items())
    head = b"II*\0" + struct.pack("<IH", 8, len(facts)) + directory + bytes(4)
    return head.ljust(200, b"\0") + b"\x80\x00\x20".ljust(50, b"\0")


def bombs() -> dict[str, bytes]:
    """Small files whose headers promise hundreds of megapixels and more."""
    image = noise(123, 77)
    jpeg_size, huge = struct.pack(">HH", 77, 123), struct.pack(">HH", 65500, 65500)
    return {
        "png": png_bomb(20_000, 20_000),
        "jpeg": patched(file_bytes(image, "JPEG"), jpeg_size, huge),
        "jpeg progressive": patched(file_bytes(image, "JPEG", progressive=True), jpeg_size, huge),
        "jpeg padded": patched(file_bytes(image, "JPEG", progressive=True), jpeg_size, huge)
        + bytes(5_000_000),
        "gif": patched(file_bytes(image, "GIF"), struct.pack("<HH", 123, 77), b"\xff\xff\xff\xff"),
        "bmp": patched(
            file_bytes(image, "BMP"), struct.pack("<ii", 123, 77), struct.pack("<ii", 60_000, 60_000)
        ),
        "ppm": b"P6 60000 60000 255\n",
        "webp": b"RIFF\xff\xff\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xfe\x3f\0" * 2 + bytes(99),
        "webp lossless": b"RIFF\xff\xff\0\0WEBPVP8L\xff\xff\0\0\x2f" + b"\xff\xff\xff\x0f" + bytes(99),
        "webp lossy": b"RIFF\xff\xff\0\0WEBPVP8 \xff\xff\0\0\x10\0\0\x9d\x01\x2a"
        + b"\xff\x3f\xff\x3f"
        + bytes(99),
        "tiff": patched(
            file_bytes(image, "TIFF"),
            struct.pack("<HHIHxx", 256, 4, 1, 123),
            struct.pack("<HHII", 256, 4, 1, 99_999_999),
        ),
        "tiff tile": tiff_tile(20_000, 20_000),
        "ico": b"\0\0\1\0\1\0\0\0\0\0\1\0\x20\0\xff\xff\0\0\x16\0\0\0" + png_bomb(20_000, 20_000),
        "ico bitmap": b"\0\0\1\0\1\0\0\0\0\0\1\0\x20\0\xff\xff\0\0\x16\0\0\0"
        + struct.pack("<Iii", 40, 30_000, 60_000)
        + bytes(99),
    }


class TestNoPicture:
    @pytest.mark.parametrize(
        ("data", "what"),
        [
            (b"", "an empty file"),
            (b"a red apple on a table\n", "looks like text"),
            ("ein Käfer, пиво".encode(), "looks like text"),
            (b"%PDF-1.7\n1 0 obj", "looks like a PDF document"),
            (b"%!PS-Adobe-3.0 EPSF-3.0\n", "looks like a PostScript document"),
            (b"\n<!DOCTYPE html><html><body>404", "looks like an HTML page"),
            (b"<html><body>404", "looks like an HTML page"),
            (
                b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
                "looks like an SVG drawing",
            ),
            (b"\0\0\0\x18ftypheic\0\0\0\0", "looks like a HEIC picture"),
            (b"\0\0\0\x18ftypisom\0\0\0\0", "looks like a video"),
            (b"PK\3\4\x14\0\0\0", "looks like a ZIP archive"),
            (b"\0\1\2\3\4\5\6\7\x08\x09", "begins with 00 01 02 03 04 05 06 07"),
        ],
    )
    def test_bytes_that_are_no_picture_are_told_by_what_they_look_like(self, data: bytes, what: str) -> None:
        assert refusal(data) == f"image bytes: {what}; {EXPECTED}"

    def test_a_git_lfs_pointer_is_told_with_the_command_that_fetches_the_file(self) -> None:
        pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
        assert "`git lfs pull` fetches it" in refusal(pointer)

    def test_text_named_jpg_is_refused_by_its_path(self, tmp_path: Path) -> None:
        path = tmp_path / "notes.jpg"
        path.write_text("not a picture")
        assert refusal(path) == f"{path}: looks like text; {EXPECTED}"

    def test_a_format_that_would_start_a_program_is_not_opened(self) -> None:
        data = file_bytes(noise(), "EPS")
        assert refusal(data) == f"image bytes: looks like a PostScript document; {EXPECTED}"


class TestPaths:
    def test_a_missing_file(self, tmp_path: Path) -> None:
        assert refusal(tmp_path / "gone.jpg") == f"{tmp_path / 'gone.jpg'}: no such file"
        assert refusal("") == "'': no such file"
        assert refusal("a\0b.jpg") == "a\\x00b.jpg: no such file"

    def test_a_directory_and_a_pipe(self, tmp_path: Path) -> None:
        assert refusal(tmp_path) == f"{tmp_path}: a directory; expected the file of a picture"
        os.mkfifo(tmp_path / "pipe")
        assert (
            refusal(tmp_path / "pipe")
            == f"{tmp_path / 'pipe'}: not a regular file; expected the file of a picture"
        )

    def test_a_file_nobody_may_read(self, tmp_path: Path) -> None:
        path = tmp_path / "secret.png"
        noise().save(path)
        path.chmod(0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)  # to the superuser nothing is forbidden
        try:
            assert refusal(path) == f"{path}: no permission to read it"
        finally:
            os.seteuid(user)

    def test_a_name_too_long_and_a_name_of_two_lines(self, tmp_path: Path) -> None:
        assert "cannot be opened (File name too long)" in refusal(tmp_path / ("x" * 300))
        assert refusal(tmp_path / "two\nlines") == f"{tmp_path}/two\\nlines: no such file"


class TestShapes:
    @pytest.mark.parametrize(
        ("array", "seen"),
        [
            (np.zeros((3, 8, 8), np.uint8), "uint8 of shape (3, 8, 8)"),
            (np.zeros((8, 8, 3), np.float32), "float32 of shape (8, 8, 3)"),
            (np.zeros((2, 8, 8, 3), np.uint8), "uint8 of shape (2, 8, 8, 3)"),
            (np.zeros(8, np.uint8), "uint8 of shape (8,)"),
        ],
    )
    def test_an_array_of_another_kind(self, array: np.ndarray, seen: str) -> None:
        assert (
            refusal(array) == f"pixel array: {seen}; expected uint8 of shape (H, W, 3), (H, W, 4) or (H, W)"
        )

    def test_pictures_without_pixels(self) -> None:
        assert refusal(np.zeros((0, 5, 3), np.uint8)) == "pixel array: holds no pixels (5 x 0)"
        assert refusal(Image.new("RGB", (0, 5))) == "PIL image: holds no pixels (0 x 5)"
        assert "no pixels" in refusal(b"P6 0 0 255\n") or "broken" in refusal(b"P6 0 0 255\n")

    def test_what_is_no_source_at_all(self) -> None:
        assert refusal(None).startswith("NoneType: no picture; expected a path")
        with pytest.raises(ValueError, match="at_least counts pixels from 1, not 0"):
            load_image(b"", at_least=0)


class TestTooLarge:
    def test_the_message_says_how_large_and_what_is_allowed(self) -> None:
        said = "too large: 20000 x 20000 pixels, at most 89,478,485 are decoded; make it smaller"
        assert refusal(png_bomb(20_000, 20_000)) == f"image bytes: {said}"
        assert MAX_PIXELS == 89_478_485

    def test_the_limit_is_the_callers_for_every_kind_of_source(self, tmp_path: Path) -> None:
        image = noise(10, 10)
        path = tmp_path / "a.png"
        image.save(path)
        for source in (path, path.read_bytes(), image, np.asarray(image)):
            assert load_image(source, max_pixels=100).size == (10, 10)
            assert "too large: 10 x 10 pixels, at most 99 are decoded" in refusal(source, max_pixels=99)

    def test_of_a_jpeg_counts_what_is_decoded_unless_the_whole_waits_in_memory(self) -> None:
        plain, progressive = (file_bytes(noise(80, 80), "JPEG", progressive=p) for p in (False, True))
        assert load_image(plain, at_least=10, max_pixels=100).size == (10, 10)
        assert "80 x 80" in refusal(progressive, at_least=10, max_pixels=100)
        assert "80 x 80" in refusal(plain, max_pixels=100)

    def test_a_jpeg_in_several_scans_counts_whole(self) -> None:
        data = file_bytes(noise(80, 80), "JPEG")
        scan = data.index(b"\xff\xda\0\x0c\x03")
        one_component = data[:scan] + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0" + data[scan + 14 :]
        assert "too large: 80 x 80" in refusal(one_component, at_least=10, max_pixels=100)

    def test_a_frame_larger_than_its_gif_is_refused(self) -> None:
        data = file_bytes(noise(), "GIF")
        frame = data.index(b",\0\0\0\0" + struct.pack("<HH", 37, 23))
        grown = data[: frame + 5] + b"\xff\xff\xff\xff" + data[frame + 9 :]
        assert refusal(grown).startswith("image bytes: too large: ")

    def test_no_bomb_is_decoded_nor_room_made_for_it(self, tmp_path: Path) -> None:
        """With 150 MB of address space to spare, not one of them runs out of it."""
        for name, data in bombs().items():
            (tmp_path / name).write_bytes(data)
        strips = "for size in ((1, 1_000_000), (1_000_000, 1)):\n    for how in ('crop', 'pad', 'squash'):\n"
        program = (
            "import pathlib, resource, sys\n"
            "from PIL import Image\n"
            "from crossmodal.errors import ImageError\n"
            "from crossmodal.images import fit_image, load_image\n"
            "used = int(pathlib.Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
            "resource.setrlimit(resource.RLIMIT_AS, (used + 150_000_000,) * 2)\n"
            "for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
            "    try:\n"
            "        load_image(path, at_least=224)\n"
            "        print(path.name, 'LOADED')\n"
            "    except ImageError as error:\n"
            "        print(error)\n" + strips + "        fit_image(Image.new('RGB', size), 224, how)\n"
        )
        command = [sys.executable, "-c", program, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        said = {line.split(": ")[0].rpartition("/")[2]: line for line in done.stdout.splitlines()}
        assert sorted(said) == sorted(bombs())
        for name, line in said.items():
            assert ("truncated JPEG: " if name == "jpeg" else "too large: ") in line


KINDS: dict[str, bytes] = {
    "jpeg": file_bytes(noise(), "JPEG"),
    "jpeg progressive": file_bytes(noise(), "JPEG", progressive=True),
    "jpeg cmyk": file_bytes(noise().convert("CMYK"), "JPEG"),
    "png": file_bytes(noise(), "PNG"),
    "png palette": file_bytes(noise().convert("P"), "PNG", transparency=3),
    "png animated": file_bytes(noise(), "PNG", save_all=True, append_images=[noise().rotate(180)]),
    "gif": file_bytes(noise(), "GIF"),
    "webp": file_bytes(noise(), "WEBP"),
    "webp lossless": file_bytes(noise(), "WEBP", lossless=True),
    "tiff": file_bytes(noise(), "TIFF"),
    "tiff float": file_bytes(noise().convert("F"), "TIFF"),
    "tiff lzw": file_bytes(noise(), "TIFF", compression="tiff_lzw"),
    "bmp": file_bytes(noise(), "BMP"),
    "avif": file_bytes(noise(), "AVIF"),
    "ico": file_bytes(noise(), "ICO", sizes=[(32, 16)]),
    "ico bitmap": file_bytes(noise(), "ICO", sizes=[(32, 16)], bitmap_format="bmp"),
    "ppm": file_bytes(noise(), "PPM"),
    "ppm plain": b"P3\n2 2\n255\n" + b"1 2 3 " * 4,
}


class TestBroken:
    @pytest.mark.parametrize("kind", sorted(KINDS))
    def test_a_file_cut_in_half_is_refused(self, kind: str, tmp_path: Path) -> None:
        data = KINDS[kind]
        path = tmp_path / "half"
        path.write_bytes(data[: len(data) // 2])
        said = refusal(path)
        assert said.startswith(f"{path}: truncated ") or said.startswith(f"{path}: broken ")
        assert said.endswith("again")

    def test_the_usual_cut_is_called_by_its_name(self) -> None:
        for kind, name in (
            ("jpeg", "JPEG"),
            ("png", "PNG"),
            ("gif", "GIF"),
            ("bmp", "BMP"),
            ("tiff", "TIFF"),
        ):
            data = KINDS[kind]
            said = refusal(data[: len(data) * 9 // 10])
            assert said == f"image bytes: truncated {name}: the file ends too early; fetch it again"

    def test_a_pil_image_that_breaks_when_it_is_loaded(self) -> None:
        lazy = Image.open(io.BytesIO(KINDS["png"][:200]))
        assert refusal(lazy).startswith("PIL image: truncated ")

    @settings(deadline=None, derandomize=True, max_examples=300)
    @given(st.sampled_from(sorted(KINDS)), st.data())
    def test_broken_files_give_a_picture_or_an_image_error(self, kind: str, draw: st.DataObject) -> None:
        data = bytearray(KINDS[kind])
        for place, value in draw.draw(
            st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), max_size=8)
        ):
            data[place] = value
        self.holds(bytes(data[: draw.draw(st.integers(len(data) // 2, len(data)))]))

    @settings(deadline=None, derandomize=True, max_examples=300)
    @given(st.sampled_from([b"", *sorted(data[:12] for data in KINDS.values())]), st.binary(max_size=200))
    def test_random_bytes_after_a_true_beginning_give_a_picture_or_an_image_error(
        self, start: bytes, rest: bytes
    ) -> None:
        self.holds(start + rest)

    @staticmethod
    def holds(data: bytes) -> None:
        said, image = "image bytes: ", None
        try:
            image = load_image(data, at_least=8, max_pixels=1_000_000)
        except ImageError as error:
            said = str(error)
        assert said.startswith("image bytes: ")
        assert "\n" not in said
        if image is not None:
            assert image.mode == "RGB"
            assert fit_image(image, 8, "crop").shape == (8, 8, 3)
