"""Print how fast JPEG files become pixels with one decoder and another, and how far the pixels lie apart.

    pip install simplejpeg pyvips-binary pyvips
    python scripts/bench_decoding.py [--pictures 32] [--large 4] [--rounds 5]

Files of 640x480 and of 4000x3000 are decoded, alone and with the resize to 224x224 (bicubic), by one thread
and by two. All decoders take turns in each round; a figure is the median over the rounds. Where a decoder
can, it decodes at the smallest scale at which both sides still have 224 pixels. "Pixels off" is the mean
absolute difference, of 255, to the whole file decoded and resized by PIL. "CPU ms" is what a picture cost
this process on its processors, resize included, which other programs disturb less than the rate.
"""

import argparse
import io
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

os.environ.setdefault("VIPS_CONCURRENCY", "1")  # the threads are ours, for libvips as for the others

import numpy as np
from measuring import machine, summary
from numpy.typing import NDArray
from PIL import Image, ImageOps
from rich.console import Console
from rich.table import Table

from crossmodal.images import fit_image, load_image
from crossmodal.sources import open_source, read_uri

SIZE = 224
SIZES = ((640, 480), (4000, 3000))
PACKAGES = ("pillow", "simplejpeg", "torchvision", "torch", "pyvips", "pyvips-binary")

Decode = Callable[[bytes], Any]
Pixels = NDArray[np.uint8]

console = Console(width=140)


@dataclass(slots=True)
class Decoder:
    """One way from a file's bytes to a picture of its library, and from that to the square of pixels."""

    decode: Decode
    resize: Callable[[Any], Pixels]
    rates: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def main() -> None:
    """Measure and print every size of file, by one thread and by two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pictures", type=int, default=32, help="files of 640x480")
    parser.add_argument("--large", type=int, default=4, help="files of 4000x3000")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    console.print(machine(*PACKAGES))
    for size, count in zip(SIZES, (options.pictures, options.large), strict=True):
        files = photographs(count, size)
        whole = [fit_image(plain(file), SIZE, "squash") for file in files]
        for threads in (1, 2):
            bench(files, whole, size, threads, options.rounds)


def photographs(count: int, size: tuple[int, int]) -> list[bytes]:
    """Draw the sample's pictures as a camera would, with a sensor's noise, and give them as JPEG files."""
    rng = np.random.default_rng(0)
    files = []
    for record in islice(open_source("sample"), count):
        with Image.open(io.BytesIO(read_uri(record.uri))) as picture:
            drawn = ImageOps.fit(picture.convert("RGB"), size, Image.Resampling.BICUBIC)
        noisy = np.asarray(drawn, np.float32) + rng.normal(0, 8, (*size[::-1], 3)).astype(np.float32)
        content = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(content, "JPEG", quality=90)
        files.append(content.getvalue())
    return files


def bench(
    files: Sequence[bytes], whole: Sequence[Pixels], size: tuple[int, int], threads: int, rounds: int
) -> None:
    """Let all decoders take turns, alone and with the resize, and print them side by side."""
    table = Table("decoder", "decode/s", "decode + resize/s", "times PIL in full", "CPU ms", "pixels off")
    table.title = f"{len(files)} JPEG files of {size[0]}x{size[1]}, {threads} thread{'s'[: threads - 1]}"
    alone, both = decoders(), decoders()
    with ThreadPoolExecutor(threads) as pool:
        for number in range(rounds + 1):  # a first one to warm up
            for name in alone:
                measure(alone[name], alone[name].decode, files, pool, counted=number > 0)
                measure(both[name], through(both[name]), files, pool, counted=number > 0)
    first = next(iter(both.values()))
    for name, decoder in both.items():
        times = statistics.median(a / b for a, b in zip(decoder.rates, first.rates, strict=True))
        pixels = map(through(decoder), files)
        off = np.mean([np.abs(a.astype(int) - b).mean() for a, b in zip(pixels, whole, strict=True)])
        cost = f"{1000 * statistics.median(decoder.seconds):.2f}"
        rates = (summary(alone[name].rates, ".1f"), summary(decoder.rates, ".1f"))
        table.add_row(name, *rates, f"{times:.2f}", cost, f"{off:.2f}")
    console.print(table)


def measure(
    decoder: Decoder, work: Decode, files: Sequence[bytes], pool: ThreadPoolExecutor, *, counted: bool
) -> None:
    """Put all files through, and note the rate and what each cost."""
    start, used = time.perf_counter(), time.process_time()
    list(pool.map(work, files))
    if counted:
        decoder.rates.append(len(files) / (time.perf_counter() - start))
        decoder.seconds.append((time.process_time() - used) / len(files))


def through(decoder: Decoder) -> Callable[[bytes], Pixels]:
    """Give decoding and resizing as one."""
    return lambda content: decoder.resize(decoder.decode(content))


# ---- the decoders ---------------------------------------------------------------------------------------


def decoders() -> dict[str, Decoder]:
    """Make every decoder that is installed, PIL in full first; say which are not."""
    found = {
        "PIL, in full": Decoder(plain, squash),
        "PIL draft: images.py": Decoder(lambda content: load_image(content, at_least=SIZE), squash),
    }
    for make in (simplejpeg_decoders, torchvision_decoders, pyvips_decoders):
        try:
            found |= make()
        except (ImportError, OSError) as error:
            console.print(f"not measured: {make.__name__.removesuffix('_decoders')} ({error})")
    return found


def plain(content: bytes) -> Image.Image:
    """Decode in full, as most people write it first."""
    return Image.open(io.BytesIO(content)).convert("RGB")


def squash(image: Image.Image) -> Pixels:
    """Resize by PIL."""
    return fit_image(image, SIZE, "squash")


def simplejpeg_decoders() -> dict[str, Decoder]:
    """Give libjpeg-turbo by its own interface, exact and with its quicker, coarser transforms."""
    from simplejpeg import decode_jpeg

    def exact(content: bytes) -> Pixels:
        pixels: Pixels = decode_jpeg(content, min_height=SIZE, min_width=SIZE)
        return pixels

    def coarse(content: bytes) -> Pixels:
        pixels: Pixels = decode_jpeg(
            content, min_height=SIZE, min_width=SIZE, fastdct=True, fastupsample=True
        )
        return pixels

    def resize(pixels: Pixels) -> Pixels:
        return squash(Image.fromarray(pixels))

    return {"simplejpeg, scaled": Decoder(exact, resize), "simplejpeg, scaled, fast": Decoder(coarse, resize)}


def torchvision_decoders() -> dict[str, Decoder]:
    """Give torchvision's decoder, which knows no smaller scale, and its resize, after PIL's draft too."""
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2.functional import resize as torch_resize

    torch.set_num_threads(1)  # the threads are ours

    def decode(content: bytes) -> torch.Tensor:
        pixels: torch.Tensor = decode_jpeg(
            torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.RGB
        )
        return pixels

    def by_pil(pixels: torch.Tensor) -> Pixels:
        return squash(Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()))

    def by_torch(pixels: torch.Tensor) -> Pixels:
        square = torch_resize(pixels, [SIZE, SIZE], InterpolationMode.BICUBIC, antialias=True)
        return square.permute(1, 2, 0).contiguous().numpy()

    def drafted(content: bytes) -> torch.Tensor:
        pixels = np.array(load_image(content, at_least=SIZE))
        return torch.from_numpy(pixels).permute(2, 0, 1)

    return {
        "PIL draft, torchvision's resize": Decoder(drafted, by_torch),
        "torchvision, in full, PIL resize": Decoder(decode, by_pil),
        "torchvision, in full, its resize": Decoder(decode, by_torch),
    }


def pyvips_decoders() -> dict[str, Decoder]:
    """Give libvips, decoding at a scale chosen as PIL's draft chooses it, resized by itself."""
    import pyvips

    def decode(content: bytes) -> pyvips.Image:
        header = pyvips.Image.jpegload_buffer(content)
        fits = (k for k in (8, 4, 2, 1) if min(header.width, header.height) >= k * SIZE)
        return pyvips.Image.jpegload_buffer(content, shrink=next(fits, 1)).copy_memory()

    def resize(image: pyvips.Image) -> Pixels:
        square = image.resize(SIZE / image.width, vscale=SIZE / image.height, kernel="cubic")
        pixels: Pixels = np.ndarray(
            buffer=square.write_to_memory(), dtype=np.uint8, shape=(square.height, square.width, square.bands)
        )
        return pixels

    return {"pyvips, scaled": Decoder(decode, resize)}


if __name__ == "__main__":
    main()
