"""Print what `torch.compile` and channels-last bring a tower run by torch, beside eager torch and OpenVINO.

    python scripts/bench_compile.py [--rounds 5] [--rows 32] [--only vit texts lite]

ViT-B/32 of open_clip with random weights (texts of 16 tokens), and the image tower of `lite`. In each round
all ways take their turn; a rate is the median over the rounds, "times" the median of the rounds' ratios to
eager float32. "CPU ms" is the processors' time for a row, which other work on the machine moves least. "First
call" is building and, where that is done, compiling. `torch.compile` needs a C++ compiler.
"""

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from bench_encoders import ARCH, random_weights
from measuring import machine, summary
from rich.console import Console
from rich.table import Table

from crossmodal.encoders import load_encoder, read_blueprint
from crossmodal.encoders.base import Embeddings
from crossmodal.encoders.runtime import BACKENDS, Inputs, InputSpec, Runner, Tower, choose_backend
from crossmodal.encoders.runtime.torch import TorchRunner
from crossmodal.errors import EncoderError

SIDE, TOKENS, WORDS = 224, 16, 49_000

console = Console(width=110)


@dataclass(slots=True)
class Way:
    """A runner of the tower, and what was measured of it."""

    run: Runner
    first: float = 0.0
    rates: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def embed(self, inputs: Inputs) -> Embeddings:
        """Run the tower."""
        return self.run([inputs])[0]


def main() -> None:
    """Measure what is asked for."""
    towers: dict[str, Callable[[Path], Tower]] = {"vit": vit, "texts": texts, "lite": lite}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--only", nargs="+", choices=towers, default=list(towers))
    options = parser.parse_args()
    console.print(machine("torch", "openvino", "open-clip-torch"))
    logging.getLogger().setLevel(logging.ERROR)  # open_clip warns of random weights, which are meant
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only:
            bench(name, towers[name](Path(folder)), options.rows, options.rounds)


def vit(folder: Path) -> Tower:
    """Give the image tower of ViT-B/32."""
    blueprint = read_blueprint(f"open_clip:{ARCH}/{random_weights(folder)}")
    pixels = InputSpec("uint8", (None, SIDE, SIDE, 3))
    return Tower(
        encoder=ARCH,
        modality="image",
        fingerprint=blueprint.fingerprint,
        dim=blueprint.dim,
        inputs=(pixels,),
        build=lambda: blueprint.load().image,
    )


def texts(folder: Path) -> Tower:
    """Give the text tower of ViT-B/32."""
    blueprint = read_blueprint(f"open_clip:{ARCH}/{random_weights(folder)}")
    return Tower(
        encoder=ARCH,
        modality="text",
        fingerprint=blueprint.fingerprint,
        dim=blueprint.dim,
        inputs=(InputSpec("int64", (None, None)),),
        build=lambda: blueprint.load().text,
    )


def lite(folder: Path) -> Tower:
    """Give the image tower of `lite`."""
    from crossmodal.encoders.lite.encoder import PIXELS
    from crossmodal.encoders.lite.model import build_image_tower

    card = load_encoder("lite").card
    return Tower(
        encoder="lite",
        modality="image",
        fingerprint=card.fingerprint,
        dim=card.dim,
        inputs=(PIXELS,),
        build=build_image_tower,
    )


def ways(tower: Tower) -> Iterator[tuple[str, Way]]:
    """Make a runner of each kind, eager float32 first; say which arithmetic this machine has not."""
    for dtype in ("float32", "bfloat16"):
        for backend in ("torch", "torch-compile", "openvino"):
            try:
                choose_backend(backend, dtype)
            except EncoderError as error:
                console.print(f"not measured: {error}")
                continue
            layouts = (False, True) if backend != "openvino" and tower.modality == "image" else (None,)
            for channels_last in layouts:
                run = BACKENDS[backend](tower, dtype)
                if isinstance(run, TorchRunner) and channels_last is not None:
                    run.channels_last = channels_last
                yield f"{backend}, {dtype}{', channels-last' if channels_last else ''}", Way(run)


def bench(name: str, tower: Tower, rows: int, rounds: int) -> None:
    """Let all ways take turns at the same rows, and print them side by side."""
    rng = np.random.default_rng(0)
    spec = tower.inputs[0]
    shape = (rows, *(size or TOKENS for size in spec.shape[1:]))
    inputs = (rng.integers(0, WORDS if spec.dtype == "int64" else 256, shape).astype(spec.dtype),)
    all_ways = dict(ways(tower))
    results = {}
    for way_name, way in all_ways.items():
        start = time.perf_counter()
        results[way_name] = way.embed(inputs)
        way.first = time.perf_counter() - start
    for _ in range(rounds):
        for way in all_ways.values():
            start, used = time.perf_counter(), time.process_time()
            way.embed(inputs)
            way.rates.append(rows / (time.perf_counter() - start))
            way.seconds.append((time.process_time() - used) / rows)
    print_table(f"{name}: {tower.encoder}, {tower.modality} tower, {rows} rows", all_ways, results)


def print_table(title: str, all_ways: dict[str, Way], results: dict[str, Embeddings]) -> None:
    """Print what was measured; ratios and cosines are to the first way."""
    eager, exact = next(iter(all_ways.values())), next(iter(results.values())).astype(np.float64)
    table = Table("", "rows/s", "times", "CPU ms", "first call, s", "worst cosine", title=title)
    for name, way in all_ways.items():
        times = statistics.median(a / b for a, b in zip(way.rates, eager.rates, strict=True))
        table.add_row(
            name,
            summary(way.rates, ".1f"),
            f"{times:.2f}",
            f"{1000 * statistics.median(way.seconds):.1f}",
            f"{way.first:.1f}",
            f"{(results[name] * exact).sum(1).min():.6f}",
        )
    console.print(table)


if __name__ == "__main__":
    main()
