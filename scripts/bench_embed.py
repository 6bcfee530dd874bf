"""Print how fast `lite` embeds on this machine, measured side by side in one run.

    python scripts/bench_embed.py [--pictures 256] [--rounds 5] [--backend auto]

Pictures are the sample's: its own small files, and the same drawn large as 640x480 JPEG files. Each round
measures decoding alone, encoding alone, both overlapped as `crossmodal index` does it, and what most people
write first: PIL and eager torch. A figure is the median over the rounds. The limit is what decoding and
encoding in turn would reach on the same processors, 1 / (1 / decode + 1 / encode).
"""

import argparse
import io
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from measuring import Rates, batches, machine, summary, timed
from PIL import Image, ImageOps

from crossmodal.encoders import Encoder, load_encoder, read_blueprint
from crossmodal.images import fit_image
from crossmodal.machine import usable_processors
from crossmodal.pipeline import Work, embed_records
from crossmodal.sources import open_source, read_uri
from crossmodal.types import Record

LARGE = (640, 480)
EAGER_BATCH = 32


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pictures", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--backend", default="auto")
    options = parser.parse_args()

    records = list(islice(open_source("sample"), options.pictures))
    encoder = load_encoder("lite", backend=options.backend)
    print(machine("openvino", "torch", "pillow", "numpy"))
    print(f"lite: backend {encoder.card.backend}, {encoder.card.dtype}, batch {encoder.batch_size}; ", end="")
    print(f"{len(records)} pictures, median of {options.rounds} rounds (lowest to highest)\n")
    with tempfile.TemporaryDirectory() as folder:
        for name, paths in write_pictures(records, Path(folder)).items():
            print(f"{name}, pictures per second")
            bench_pictures(paths, encoder, options.rounds)
    print("texts")
    bench_texts([caption for record in records for caption in record.captions], encoder, options.rounds)


def write_pictures(records: list[Record], folder: Path) -> dict[str, list[Path]]:
    """Write each picture twice: its own file as it is, and drawn large as a JPEG."""
    own, large = folder / "own", folder / "large"
    own.mkdir()
    large.mkdir()
    files: dict[str, list[Path]] = {"the sample's own files": [], f"JPEG files of {LARGE[0]}x{LARGE[1]}": []}
    for number, record in enumerate(records):
        content = read_uri(record.uri)
        path = own / f"{number:05}.picture"
        path.write_bytes(content)
        files["the sample's own files"].append(path)
        with Image.open(io.BytesIO(content)) as picture:
            drawn = ImageOps.fit(picture.convert("RGB"), LARGE, Image.Resampling.BICUBIC)
        path = large / f"{number:05}.jpg"
        drawn.save(path, quality=90)
        files[f"JPEG files of {LARGE[0]}x{LARGE[1]}"].append(path)
    return files


def bench_pictures(paths: list[Path], encoder: Encoder, rounds: int) -> None:
    """Measure one set of files in every way, round by round."""
    rates: Rates = {}
    eager = read_blueprint("lite").load().image
    encoder.encode_images(paths[:EAGER_BATCH])
    pixels = [encoder.prepare_image(path) for path in paths]
    some = paths[: 2 * EAGER_BATCH]  # eager torch is slow, and as slow for a few
    for _ in range(rounds):
        with timed(rates, "decode alone", len(paths)), ThreadPoolExecutor(usable_processors()) as pool:
            list(pool.map(encoder.prepare_image, paths))
        with timed(rates, "encode alone", len(paths)):
            for batch in batches(pixels, encoder.batch_size):
                encoder.embed_pixels(np.stack(batch))
        works = (Work(record=Record(key=path.name, image=path)) for path in paths)
        with timed(rates, "decode and encode", len(paths)):
            for _results in embed_records(works, encoder):
                pass
        with timed(rates, "PIL and eager torch", len(some)), torch.inference_mode():
            for batch in batches(some, EAGER_BATCH):
                eager(torch.from_numpy(np.stack([plain_pixels(path, encoder) for path in batch])))
    decode, encode, both, plain = rates.values()
    shares = [b * (1 / d + 1 / e) for d, e, b in zip(decode, encode, both, strict=True)]
    times = [b / p for b, p in zip(both, plain, strict=True)]
    for name, values in rates.items():
        print(f"  {name:24}{summary(values, '8.0f')}")
    print(f"  {'share of the limit':24}{summary(shares, '8.2f')}")
    print(f"  {'times PIL and torch':24}{summary(times, '8.1f')}\n")


def plain_pixels(path: Path, encoder: Encoder) -> np.ndarray:
    """Decode in full and fit, the way most people write it first."""
    with Image.open(path) as picture:
        return fit_image(picture.convert("RGB"), encoder.card.image_size, "pad")


def bench_texts(texts: list[str], encoder: Encoder, rounds: int) -> None:
    """Measure many texts at once, and one at a time as a search does."""
    rates: Rates = {}
    encoder.encode_texts(texts)
    single: list[float] = []
    for _ in range(rounds):
        with timed(rates, "at once, per second", len(texts)):
            encoder.encode_texts(texts)
        for text in texts[:50]:
            start = time.perf_counter()
            encoder.encode_texts([text])
            single.append(1000 * (time.perf_counter() - start))
    print(f"  {'at once, per second':24}{summary(rates['at once, per second'], '8.0f')}")
    ninety_nine = statistics.quantiles(single, n=100)[98]
    print(f"  {'one alone, ms':24}{statistics.median(single):8.1f}  (p99 {ninety_nine:.1f})")


if __name__ == "__main__":
    sys.exit(main())
