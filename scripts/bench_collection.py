"""Measure what a person waits for: answers of a whole collection, and commands from the shell prompt on.

    python scripts/bench_collection.py [--records 10000 100000] [--rounds 7]

Collections are made of random vectors, a picture and a caption for each record, so that no picture is
embedded; queries are embedded by `lite` for real. A warm round comes first and is not counted: it fills the
cache of compiled towers and the system's memory of the files, as any second use would find them.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measuring import machine
from rich.console import Console
from rich.table import Table

from crossmodal import Collection, load_encoder
from crossmodal.collection import StoredRecord
from crossmodal.encoders.base import Embeddings, Encoder

WORDS = ["red", "apple", "wooden", "table", "blue", "flag", "stars", "green", "hills", "small", "dogs"]
CHUNK = 10_000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--records", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    console = Console()
    console.print(machine("pylance", "faiss-cpu", "faiss-gpu-cu12", "openvino"))
    encoder = load_encoder("lite")
    answers = Table(
        "records", "what is asked", "answers/s", "p50 ms", "p99 ms", title="Collection.search, k=10"
    )
    commands = Table("records", "command", "median s", "lowest", "highest", title="from the shell prompt on")
    with tempfile.TemporaryDirectory() as folder:
        for records in options.records:
            path = Path(folder) / str(records)
            collection = make_collection(path, encoder, records, options.seed)
            for row in time_answers(collection, options.queries, options.seed):
                answers.add_row(f"{records:,}", *row)
            for row in time_commands(path, options.rounds):
                commands.add_row(f"{records:,}", *row)
    console.print(answers)
    console.print(commands)


def make_collection(path: Path, encoder: Encoder, records: int, seed: int) -> Collection:
    """Fill a collection with random unit vectors, past the encoder."""
    rng = np.random.default_rng(seed)
    collection = Collection.create(path, encoder)
    with collection._writing() as store:
        for start in range(0, records, CHUNK):
            chunk = [
                StoredRecord(
                    key=f"{i:08}.jpg",
                    uri=f"/pictures/{i:08}.jpg",
                    captions=(" ".join(rng.choice(WORDS, 8)),),
                    metadata={},
                    digest="-",
                    image_embedding=unit(rng, encoder.card.dim),
                    text_embeddings=unit(rng, encoder.card.dim)[None],
                )
                for i in range(start, min(start + CHUNK, records))
            ]
            store.append(chunk)
        store.optimise()
    collection.verify(repair=True)  # writes the index files
    return collection


def unit(rng: np.random.Generator, dim: int) -> Embeddings:
    """Make one random vector of length 1."""
    vector = rng.standard_normal(dim, dtype=np.float32)
    return vector / np.linalg.norm(vector)


def time_answers(collection: Collection, queries: int, seed: int) -> list[tuple[str, str, str, str]]:
    """Ask one query after another, in one process that is warm."""
    rng = np.random.default_rng(seed + 1)
    texts = [" ".join(rng.choice(WORDS, 5)) for _ in range(queries)]
    half = "key < '" + f"{len(collection) // 2:08}.jpg" + "'"
    asked: dict[str, Callable[[str], object]] = {
        "words": lambda text: collection.search(text),
        "words, half filtered": lambda text: collection.search(text, where=half),
        "words, captions": lambda text: collection.search(text, target="text"),
    }
    rows = []
    for name, ask in asked.items():
        for text in texts[:20]:
            ask(text)
        took = [seconds(ask, text) for text in texts]
        p50, p99 = np.percentile(took, [50, 99]) * 1000
        rows.append((name, f"{len(took) / sum(took):,.0f}", f"{p50:.2f}", f"{p99:.2f}"))
    return rows


def time_commands(path: Path, rounds: int) -> list[tuple[str, str, str, str]]:
    """Run whole commands, side by side in each round."""
    command = shutil.which("crossmodal", path=str(Path(sys.executable).parent)) or "crossmodal"
    runs = {
        "crossmodal --help": [command, "--help"],
        "crossmodal search": [command, "search", str(path), "--text", "a red apple"],
        "crossmodal search --where": [
            command,
            "search",
            str(path),
            "--text",
            "a red apple",
            "--where",
            "key < '5'",
        ],
    }
    took: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, words in runs.items():
            took[name].append(seconds(lambda w: subprocess.run(w, check=True, capture_output=True), words))
    counted = {name: times[1:] for name, times in took.items()}
    return [(n, f"{statistics.median(t):.2f}", f"{min(t):.2f}", f"{max(t):.2f}") for n, t in counted.items()]


def seconds(work: Callable[..., object], *given: object) -> float:
    """Time one call."""
    start = time.perf_counter()
    work(*given)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
