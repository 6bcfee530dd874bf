"""Measure what small vectors save and what they cost: float32, float16, int8 and binary, whole and cut.

    python scripts/bench_vectors.py
    python scripts/bench_vectors.py --rows 1000000 --dim 512 --json vectors.json
    python scripts/bench_vectors.py --source pairs.csv --encoder FOLDER --dims 512 256 128

Two tables. First an encoder on a source, captions asking for their pictures: R@1 and R@10, and how many of
the ten nearest are those of the whole vectors in float32. Then many random vectors around random centres, as
a collection would hold them: bytes in memory (the arrays that a search reads whole), of the index file and of
the table, and answers a second for one caller.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from measuring import machine
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from crossmodal.collection.schema import StoredRecord
from crossmodal.collection.store import Store
from crossmodal.encoders import EncoderCard, load_encoder
from crossmodal.index import STORAGES, ExactIndex, FaissIndex, Storage
from crossmodal.sources import open_source

Vectors = NDArray[np.float32]
PACKAGES = ("faiss-cpu", "faiss-gpu-cu12", "numpy", "pylance")
NEAREST = 10
QUERIES = 200
ROUNDS = 3
ROWS_AT_A_TIME = 8192


def main() -> None:
    """Run the measurements that the command line asks for and print two tables."""
    options = parse_options()
    console = Console()
    console.print(machine(*PACKAGES))
    on_source = list(measure_source(options))
    console.print(source_table(options, on_source))
    on_rows = list(measure_rows(options))
    console.print(rows_table(options, on_rows))
    if options.json:
        figures = {"machine": machine(*PACKAGES), "source": on_source, "rows": on_rows}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--source", default="sample:test")
    parser.add_argument("--encoder", default="lite")
    parser.add_argument("--dims", type=int, nargs="+", default=[384, 256, 128])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384, help="dimensions of the random vectors")
    parser.add_argument("--centres", type=int, default=1000, help="how many clusters the random vectors form")
    parser.add_argument("--seconds", type=float, default=3.0, help="time for each storage and round")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    return parser.parse_args()


# -- an encoder on a source -------------------------------------------------------------------------------


def measure_source(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Embed once, then search every combination of dimensions and storage."""
    encoder = load_encoder(options.encoder)
    records = [record for record in open_source(options.source) if record.captions]
    images = encoder.encode_images(record.image for record in records)
    texts = encoder.encode_texts(caption for record in records for caption in record.captions)
    right = np.repeat(np.arange(len(records)), [len(record.captions) for record in records])
    whole = nearest("float32", images, texts)
    for dim in options.dims:
        for storage in STORAGES:
            found = nearest(storage, cut(images, dim), cut(texts, dim))
            yield {
                "storage": storage,
                "dim": dim,
                "whole_dim": images.shape[1],
                "pictures": len(images),
                "texts": len(texts),
                "recall@1": float((found[:, 0] == right).mean()),
                "recall@10": float((found == right[:, None]).any(axis=1).mean()),
                "kept": common(found, whole),
            }


def cut(vectors: Vectors, dim: int) -> Vectors:
    """Give the first dimensions, made of length 1 again."""
    prefix = vectors[:, :dim]
    return prefix / np.linalg.norm(prefix, axis=1, keepdims=True)


def nearest(storage: Storage, images: Vectors, texts: Vectors) -> NDArray[np.int64]:
    """Search as a collection would: the places of the ten best pictures for each text."""
    index = FaissIndex(images.shape[1], gpus="none", storage=storage)
    index.add(np.arange(len(images)), images)
    return index.search(texts, NEAREST)[1]


def common(found: NDArray[np.int64], expected: NDArray[np.int64]) -> float:
    """Give the share of the expected that was found."""
    pairs = zip(found.tolist(), expected.tolist(), strict=True)
    return float(np.mean([len(set(a) & set(b)) for a, b in pairs])) / NEAREST


def source_table(options: argparse.Namespace, results: list[dict[str, Any]]) -> Table:
    """Lay out the first table."""
    first = results[0]
    title = f"{options.encoder} on {options.source}: {first['texts']} captions, {first['pictures']} pictures"
    table = Table(title=title)
    for column in ("dimensions", "storage", "R@1", "R@10", "ten nearest kept"):
        table.add_column(column, justify="left" if column == "storage" else "right")
    for result in results:
        figures = (f"{100 * result[name]:.1f}%" for name in ("recall@1", "recall@10", "kept"))
        table.add_row(str(result["dim"]), result["storage"], *figures)
    return table


# -- many rows --------------------------------------------------------------------------------------------


def measure_rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measure each storage on the same rows; the rounds take turns, so that a busy moment hits all alike."""
    rng = np.random.default_rng(options.seed)
    centres = rng.standard_normal((options.centres, options.dim), dtype=np.float32)
    vectors, queries = clustered(rng, centres, options.rows), clustered(rng, centres, QUERIES)
    exact = ExactIndex(options.dim)
    exact.add(np.arange(options.rows), vectors)
    expected = exact.search(queries, NEAREST)[1]
    del exact
    with tempfile.TemporaryDirectory() as folder:
        indexes, results = {}, {}
        for storage in STORAGES:
            file = Path(folder) / f"{storage}.index"
            table = table_bytes(Path(folder) / storage, vectors, storage)
            made = FaissIndex(options.dim, gpus="none", storage=storage)
            made.add(np.arange(options.rows), vectors)
            made.save(file, {})
            indexes[storage] = FaissIndex.load(file, gpus="none")[0]
            results[storage] = {
                "storage": storage,
                "rows": options.rows,
                "dim": options.dim,
                "bytes_in_memory": options.rows * (8 + made.describe()["bytes_per_vector"]),
                "bytes_of_index_file": file.stat().st_size,
                "bytes_of_table": table,
                "kept": common(indexes[storage].search(queries, NEAREST)[1], expected),
                "answers_per_second": [],
            }
        for _ in range(ROUNDS):
            for storage in STORAGES:
                rate = answers_per_second(indexes[storage], queries, options.seconds)
                results[storage]["answers_per_second"].append(rate)
        yield from results.values()


def clustered(rng: np.random.Generator, centres: Vectors, rows: int) -> Vectors:
    """Make vectors of length 1 around some centres: float32 (rows, D)."""
    made = np.empty((rows, centres.shape[1]), np.float32)
    for start in range(0, rows, ROWS_AT_A_TIME):
        part = made[start : start + ROWS_AT_A_TIME]
        part[:] = centres[rng.integers(0, len(centres), len(part))]
        part += 0.5 * rng.standard_normal(part.shape, dtype=np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return made


def table_bytes(path: Path, vectors: Vectors, storage: Storage) -> int:
    """Write the vectors as a collection's table and give its size on disk."""
    card = EncoderCard(
        name="bench",
        dim=vectors.shape[1],
        fingerprint="",
        backend="",
        dtype="float32",
        image_size=1,
        text_limit=1,
    )
    store = Store.create(path, card, storage)
    none = np.empty((0, vectors.shape[1]), np.float32)
    for start in range(0, len(vectors), ROWS_AT_A_TIME):
        part = vectors[start : start + ROWS_AT_A_TIME]
        store.append([record_of(start + i, vector, none) for i, vector in enumerate(part)])
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def record_of(number: int, vector: Vectors, none: Vectors) -> StoredRecord:
    """Make a record of a picture without captions."""
    return StoredRecord(
        key=str(number), uri="", captions=(), metadata={}, image_embedding=vector, text_embeddings=none
    )


def answers_per_second(index: FaissIndex, queries: Vectors, seconds: float) -> float:
    """Ask one query after another."""
    answers, start = 0, time.perf_counter()
    while (took := time.perf_counter() - start) < seconds:
        index.search(queries[answers % len(queries)][None], NEAREST)
        answers += 1
    return answers / took


def rows_table(options: argparse.Namespace, results: list[dict[str, Any]]) -> Table:
    """Lay out the second table."""
    table = Table(title=f"{options.rows:,} clustered vectors of {options.dim}, k={NEAREST}, one caller")
    table.add_column("storage")
    for column in ("in memory", "index file", "table", "answers/s, best of rounds", "ten nearest kept"):
        table.add_column(column, justify="right")
    for result in results:
        sizes = (result[f"bytes_{name}"] for name in ("in_memory", "of_index_file", "of_table"))
        table.add_row(
            result["storage"],
            *(f"{size / 1e6:.1f} MB" for size in sizes),
            f"{max(result['answers_per_second']):,.0f}",
            f"{100 * result['kept']:.1f}%",
        )
    return table


if __name__ == "__main__":
    main()
