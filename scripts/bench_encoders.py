"""Print how fast encoders run beside what their own libraries do, and how far arithmetic moves embeddings.

    python scripts/bench_encoders.py [--rounds 5] [--pictures 192] [--only images texts lite memory agreement]

Everything is measured side by side in one run: in each round all ways of doing a thing take their turn, a
figure is the median over the rounds, a ratio the median of the rounds' ratios. ViT-B/32 has random weights,
the same for all: speed does not depend on them. Pictures are the sample's, drawn large as JPEG files.
"""

import argparse
import logging
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import open_clip
import torch
from bench_embed import bench_pictures, write_pictures
from measuring import Rates, machine, summary, timed
from PIL import Image
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file
from torch.utils.data import DataLoader, Dataset

from crossmodal.encoders import Encoder, load_encoder
from crossmodal.encoders.base import Embeddings
from crossmodal.encoders.calibration import choose_pictures
from crossmodal.metrics.retrieval import evaluate_retrieval
from crossmodal.pipeline import Work, embed_records
from crossmodal.sources import open_source
from crossmodal.types import Record

ARCH = "ViT-B-32"
PACKAGES = ("open-clip-torch", "torch", "openvino", "nncf", "transformers", "pillow", "faiss-cpu")
DTYPES = ("float32", "bfloat16", "int8")
CALIBRATION = 128
SENTENCE = (
    "a photo of two brown dogs and red boat near an old wooden bridge with people under grey sky while "
    "children play on green grass beside tall trees at sunset in the city"
)

console = Console(width=110)


def main() -> None:
    """Measure and print what is asked for."""
    parts: dict[str, Callable[[argparse.Namespace], None]] = {
        "images": bench_images,
        "texts": bench_texts,
        "lite": bench_lite,
        "memory": bench_memory,
        "agreement": bench_agreement,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=192)
    parser.add_argument("--captions", type=int, default=512)
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--memory-pictures", type=int, nargs=2, default=[1_000, 20_000])
    options = parser.parse_args()
    console.print(machine(*PACKAGES))
    logging.getLogger().setLevel(logging.ERROR)  # open_clip warns of random weights, which are meant
    for part in options.only:
        parts[part](options)


# ---- ViT-B/32 against open_clip -------------------------------------------------------------------------


class Files(Dataset):
    """Picture files through open_clip's own transform, as its users read them."""

    def __init__(self, paths: Sequence[Path], transform: Callable[[Image.Image], torch.Tensor]) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> torch.Tensor:
        with Image.open(self.paths[row]) as picture:
            return self.transform(picture)


def random_weights(folder: Path) -> Path:
    """Write random weights of the architecture into a file."""
    torch.manual_seed(0)
    path = folder / "weights.safetensors"
    save_file(open_clip.create_model(ARCH).state_dict(), path)
    return path


def bench_images(options: argparse.Namespace) -> None:
    """Measure JPEG files to embeddings, in every arithmetic."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = random_weights(folder)
        model, _, transform = open_clip.create_model_and_transforms(ARCH, pretrained=str(weights))
        paths = list(write_pictures(list(islice(open_source("sample"), options.pictures)), folder).values())[
            -1
        ]
        loader = DataLoader(Files(paths, transform), batch_size=32, num_workers=2)

        @torch.inference_mode()
        def theirs() -> Embeddings:
            return np.concatenate(
                [model.eval().encode_image(batch, normalize=True).numpy() for batch in loader]
            )

        ways: dict[str, Callable[[], Embeddings]] = {"open_clip, DataLoader of two": theirs}
        for dtype in DTYPES:
            encoder = vit(weights, dtype, paths)
            ways[f"ours, {encoder.card.backend}, {dtype}"] = lambda encoder=encoder: from_files(
                encoder, paths
            )
        title = f"{ARCH}: JPEG files of {{}} to embeddings"
        compare(title.format("640x480"), "pictures/s", ways, len(paths), options.rounds)
        large = photographs(paths[:8], folder)
        exact = [transform(Image.open(path)) for path in large]
        with torch.inference_mode():
            theirs_large = model.eval().encode_image(torch.stack(exact), normalize=True).numpy()
        cosines = (from_files(vit(weights, "float32", []), large).astype(np.float64) * theirs_large).sum(1)
        told = f"mean cosine to open_clip {cosines.mean():.6f}, worst {cosines.min():.6f}"
        console.print(f"JPEG files of 4000x3000, with noise, which ours decodes at a smaller scale: {told}\n")


def photographs(paths: Sequence[Path], folder: Path) -> list[Path]:
    """Draw pictures as large as a camera's, with a sensor's noise, which a smaller decoding loses first."""
    rng = np.random.default_rng(0)
    large = []
    for number, path in enumerate(paths):
        with Image.open(path) as picture:
            pixels = np.asarray(picture.resize((4000, 3000), Image.Resampling.BICUBIC), np.float32)
        noisy = pixels + rng.normal(0, 8, pixels.shape).astype(np.float32)
        large.append(folder / f"large{number}.jpg")
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(large[-1], quality=92)
    return large


def bench_texts(options: argparse.Namespace) -> None:
    """Measure captions to embeddings."""
    rng = np.random.default_rng(0)
    captions = [" ".join(rng.choice(SENTENCE.split(), rng.integers(8, 21))) for _ in range(options.captions)]
    with tempfile.TemporaryDirectory() as name:
        weights = random_weights(Path(name))
        model = open_clip.create_model(ARCH, pretrained=str(weights)).eval()
        tokenizer = open_clip.get_tokenizer(ARCH)

        @torch.inference_mode()
        def theirs() -> Embeddings:
            pieces = (captions[start : start + 32] for start in range(0, len(captions), 32))
            return np.concatenate(
                [model.encode_text(tokenizer(piece), normalize=True).numpy() for piece in pieces]
            )

        ways: dict[str, Callable[[], Embeddings]] = {"open_clip, padded to 77": theirs}
        for dtype in ("float32", "bfloat16"):
            encoder = vit(weights, dtype, [])
            ways[f"ours, {encoder.card.backend}, {dtype}"] = lambda encoder=encoder: encoder.encode_texts(
                captions
            )
        compare(f"{ARCH}: captions of 8 to 20 words", "captions/s", ways, len(captions), options.rounds)


def vit(weights: Path, dtype: str, calibration: Sequence[Path]) -> Encoder:
    """Load the architecture through our catalogue."""
    given = {"calibration": calibration[:CALIBRATION]} if dtype == "int8" else {}
    return load_encoder(f"open_clip:{ARCH}/{weights}", dtype=dtype, **given)


def from_files(encoder: Encoder, paths: Sequence[Path]) -> Embeddings:
    """Embed files as `crossmodal index` does, decoding ahead."""
    works = (Work(record=Record(key=path.name, image=path)) for path in paths)
    return np.stack([done.image_embedding for batch in embed_records(works, encoder) for done in batch])


def compare(
    title: str, unit: str, ways: dict[str, Callable[[], Embeddings]], count: int, rounds: int
) -> None:
    """Let all ways take turns; the first is what the others are measured against."""
    results = {name: way() for name, way in ways.items()}  # a warm round, not counted
    rates: Rates = {}
    for _ in range(rounds):
        for name, way in ways.items():
            with timed(rates, name, count):
                way()
    first = next(iter(ways))
    table = Table("", unit, "times the first", "mean cosine", "worst cosine", title=title)
    for name, values in rates.items():
        ratio = statistics.median(a / b for a, b in zip(values, rates[first], strict=True))
        cosines = (results[name].astype(np.float64) * results[first]).sum(1)
        table.add_row(
            name, summary(values, ".1f"), f"{ratio:.2f}", f"{cosines.mean():.6f}", f"{cosines.min():.6f}"
        )
    console.print(table)


# ---- lite -----------------------------------------------------------------------------------------------


def bench_lite(options: argparse.Namespace) -> None:
    """Measure `lite` from files against PIL and eager torch, in float32 and in the quickest arithmetic."""
    records = list(islice(open_source("sample"), options.pictures))
    with tempfile.TemporaryDirectory() as folder:
        for name, paths in write_pictures(records, Path(folder)).items():
            for dtype in DTYPES:
                console.print(f"lite, {dtype}, {name}, pictures a second")
                bench_pictures(paths, lite(dtype), options.rounds)


def lite(dtype: str) -> Encoder:
    """Load `lite`; int8 is calibrated on the sample's training split."""
    if dtype != "int8":
        return load_encoder("lite", dtype=dtype)
    return load_encoder("lite", dtype=dtype, calibration=choose_pictures(open_source("sample:train")))


def bench_agreement(options: argparse.Namespace) -> None:
    """Print how far each arithmetic moves the embeddings of `lite`, and what that does to its recall."""
    records = list(open_source("sample:test"))
    texts = [record.captions[0] for record in records]
    table = Table(
        "dtype", "mean cosine", "worst cosine", *(f"{w} R@{k}" for w in ("t2i", "i2t") for k in (1, 10))
    )
    table.title = f"lite against itself in float32, {len(records)} pictures of sample:test"
    exact: Embeddings | None = None
    for dtype in DTYPES:
        encoder = lite(dtype)
        images = encoder.encode_images(record.image for record in records)
        exact = images if exact is None else exact
        report = evaluate_retrieval(images, encoder.encode_texts(texts), np.arange(len(texts))).to_dict()
        cosines = (images.astype(np.float64) * exact).sum(1)
        recalls = [report[way][f"recall@{k}"] for way in ("text_to_image", "image_to_text") for k in (1, 10)]
        table.add_row(dtype, f"{cosines.mean():.5f}", f"{cosines.min():.5f}", *(f"{r:.3f}" for r in recalls))
    console.print(table)


# ---- memory ---------------------------------------------------------------------------------------------


def bench_memory(options: argparse.Namespace) -> None:
    """Embed few and many pictures, each in a process of its own, and print the most memory it took."""
    table = Table("pictures", "peak memory, MB", title="lite from JPEG files: memory")
    with tempfile.TemporaryDirectory() as folder:
        records = list(islice(open_source("sample"), 64))
        paths = list(write_pictures(records, Path(folder)).values())[-1]
        for count in options.memory_pictures:
            told = subprocess.run(
                [sys.executable, __file__, "--peak", str(count), str(paths[0].parent)],
                check=True,
                capture_output=True,
                text=True,
            )
            table.add_row(f"{count:,}", f"{int(told.stdout) / 1024:,.0f}")
    console.print(table)


def print_peak(count: int, folder: Path) -> None:
    """Embed so many pictures, the folder's over and over, and print this process's peak memory in KiB."""
    paths = islice(cycle(sorted(folder.iterdir())), count)
    works = (Work(record=Record(key=str(number), image=path)) for number, path in enumerate(paths))
    for _results in embed_records(works, load_encoder("lite")):
        pass
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        print_peak(int(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
