"""Measure search: answers per second, median and 99th percentile, plain and filtered, for one caller.

    python scripts/bench_search.py
    python scripts/bench_search.py --rows 500000 --dim 512 --backend exact --json search.json

Vectors are random and normalised, made from a seed; every answer is one query of the index alone. Before it
measures, it checks that the first answers equal brute force in ids and scores.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measuring import machine
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from crossmodal.index import ExactIndex, FaissIndex, Index

BACKENDS: dict[str, Callable[[int], Index]] = {"faiss": FaissIndex, "exact": ExactIndex}
PACKAGES = ("faiss-cpu", "faiss-gpu-cu12", "numpy")
SHARES = {"all rows": None, "1% pass": 0.01, "50% pass": 0.5}


def main() -> None:
    """Run the measurements that the command line asks for and print a table."""
    options = parse_options()
    console = Console()
    console.print(machine(*PACKAGES))
    table = Table(title=f"{options.backend}, dimensions {options.dim}, k={options.k}, one caller")
    columns = ("rows", "filter", "answers/s", "p50 ms", "p99 ms")
    for column in columns:
        table.add_column(column, justify="left" if column == "filter" else "right")
    results = []
    for rows in options.rows:
        for result in measure_rows(rows, options):
            results.append(result)
            table.add_row(
                f"{result['rows']:,}",
                result["filter"],
                f"{result['answers_per_second']:,.0f}",
                f"{result['p50_ms']:.2f}",
                f"{result['p99_ms']:.2f}",
            )
    console.print(table)
    if options.json:
        options.json.write_text(
            json.dumps({"machine": machine(*PACKAGES), "results": results}, indent=2) + "\n"
        )


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--backend", choices=sorted(BACKENDS), default="faiss")
    parser.add_argument("--seconds", type=float, default=5.0, help="time for each line of the table")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    return parser.parse_args()


def measure_rows(rows: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure one size of index, once for each filter."""
    rng = np.random.default_rng(options.seed)
    vectors = normalised(rng, rows, options.dim)
    queries = normalised(rng, 256, options.dim)
    index = BACKENDS[options.backend](options.dim)
    index.add(np.arange(rows), vectors)
    results = []
    for name, share in SHARES.items():
        allowed = None
        if share is not None:
            allowed = np.sort(rng.choice(rows, max(1, int(rows * share)), replace=False))
        check(index, vectors, queries[:3], options.k, allowed)
        took = time_answers(index, queries, options.k, allowed, options.seconds)
        results.append(
            {
                "rows": rows,
                "filter": name,
                "answers": len(took),
                "answers_per_second": len(took) / took.sum(),
                "p50_ms": 1000 * float(np.percentile(took, 50)),
                "p99_ms": 1000 * float(np.percentile(took, 99)),
            }
        )
    return results


def normalised(rng: np.random.Generator, rows: int, dim: int) -> NDArray[np.float32]:
    """Make random vectors of length 1: (rows, dim)."""
    vectors = rng.standard_normal((rows, dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def check(
    index: Index,
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    k: int,
    allowed: NDArray[np.int64] | None,
) -> None:
    """Stop when the index does not answer as brute force does."""
    known = np.arange(len(vectors)) if allowed is None else allowed
    scores, ids = index.search(queries, k, allowed)
    exact = (queries.astype(np.float64) @ vectors[known].T.astype(np.float64)).astype(np.float32)
    order = np.argsort(-exact, axis=1, kind="stable")[:, :k]
    found = order.shape[1]
    if not np.array_equal(ids[:, :found], known[order]):
        raise SystemExit("The index found other rows than brute force; its speed means nothing.")
    if not np.array_equal(scores[:, :found], np.take_along_axis(exact, order, axis=1)):
        raise SystemExit("The index gave other scores than brute force; its speed means nothing.")


def time_answers(
    index: Index,
    queries: NDArray[np.float32],
    k: int,
    allowed: NDArray[np.int64] | None,
    seconds: float,
) -> NDArray[np.float64]:
    """Ask one query after another for so many seconds, and twenty at least; give the seconds each took."""
    took: list[float] = []
    end = time.perf_counter() + seconds
    while len(took) < 20 or time.perf_counter() < end:
        query = queries[len(took) % len(queries)][None]
        start = time.perf_counter()
        index.search(query, k, allowed)
        took.append(time.perf_counter() - start)
    return np.array(took)


if __name__ == "__main__":
    main()
