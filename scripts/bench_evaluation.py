"""Measure what evaluation takes, seconds and memory, beside CLIP_benchmark's recall where that is installed.

python scripts/bench_evaluation.py [--images 5000] [--captions 5] [--dim 512] [--noise 12] [--rounds 3]
                                    [--large] [--peer-batch 64]

Each measurement runs in a process of its own, which makes the same embeddings by seed and tells the peak of
its memory, interpreter and libraries included. --large measures 50,000 images with 250,000 captions as well.
CLIP_benchmark: pip install --no-deps clip-benchmark. Its functions are called as its `evaluate` calls them,
with the batch size given by --peer-batch (its command's default is 64).
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from importlib.util import find_spec

import numpy as np
from measuring import machine

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


def main() -> None:
    """Measure all of it and print a table; with --child, measure one thing and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--captions", type=int, default=5)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--noise", type=float, default=12.0, help="the larger, the worse the recalls")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--peer-batch", type=int, default=64)
    parser.add_argument("--child", choices=CHILDREN, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(CHILDREN[options.child](options)))
        return
    print(machine("numpy", "torch", "clip-benchmark"))
    ours = compare("ours", "all measures, both ways", options)
    if find_spec("clip_benchmark"):
        peer = compare("peer", f"CLIP_benchmark, recall alone, batches of {options.peer_batch}", options)
        print(f"  {peer['seconds'] / ours['seconds']:.1f} times as fast;", end=" ")
        apart = max(abs(ours["recalls"][name] - value) for name, value in peer["recalls"].items())
        print(f"recalls at most {apart:.1e} apart")
    else:
        print("  CLIP_benchmark is not installed: pip install --no-deps clip-benchmark")
    if options.large:
        options.images, options.rounds = 10 * options.images, 1
        compare("ours", "all measures, both ways", options)


def compare(child: str, what: str, options: argparse.Namespace) -> dict:
    """Measure one thing in processes of its own, print it, and give the last with the median time."""
    command = [sys.executable, __file__, "--child", child]
    for name in ("images", "captions", "dim", "noise", "peer_batch"):
        command += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    rounds = [
        json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for _ in range(options.rounds)
    ]
    seconds = [done["seconds"] for done in rounds]
    texts = options.images * options.captions
    print(
        f"  {options.images:,} x {texts:,} x {options.dim}, {what}: "
        f"{statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f}), "
        f"peak {max(done['peak_mb'] for done in rounds):,.0f} MB"
    )
    return {**rounds[-1], "seconds": statistics.median(seconds)}


def made_embeddings(options: argparse.Namespace) -> Arrays:
    """Make images and captions that lean to them, in float32, in pieces that leave no trace in the peak."""
    rng = np.random.default_rng(0)
    images = normalised(rng.standard_normal((options.images, options.dim), np.float32))
    owner = np.repeat(np.arange(options.images), options.captions)
    texts = np.empty((len(owner), options.dim), np.float32)
    for start in range(0, len(owner), 4096):
        own = images[owner[start : start + 4096]]
        noise = rng.standard_normal(own.shape, np.float32)
        texts[start : start + 4096] = normalised(own + options.noise / options.dim**0.5 * noise)
    return images, texts, owner


def normalised(rows: np.ndarray) -> np.ndarray:
    """Make every row of length 1, in place."""
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def measure_ours(options: argparse.Namespace) -> dict:
    """Time every measure of the contract."""
    from crossmodal.metrics.retrieval import evaluate_retrieval

    images, texts, owner = made_embeddings(options)
    start = time.perf_counter()
    report = evaluate_retrieval(images, texts, owner)
    seconds = time.perf_counter() - start
    ways = {"t2i": report.text_to_image, "i2t": report.image_to_text}
    recalls = {f"{way}@{k}": share for way, side in ways.items() for k, share in side.recall.items()}
    return {"seconds": seconds, "peak_mb": peak_mb(), "recalls": recalls}


def measure_peer(options: argparse.Namespace) -> dict:
    """Time CLIP_benchmark's recalls at 1, 5 and 10, from embeddings on."""
    import torch
    from clip_benchmark.metrics.zeroshot_retrieval import batchify, recall_at_k

    images, texts, owner = map(torch.from_numpy, made_embeddings(options))
    start = time.perf_counter()
    scores = texts @ images.t()
    positive = torch.zeros_like(scores, dtype=torch.bool)
    positive[torch.arange(len(scores)), owner] = True
    recalls = {}
    for k in (1, 5, 10):
        for way, given, right in (("t2i", scores, positive), ("i2t", scores.T, positive.T)):
            found = batchify(recall_at_k, given, right, options.peer_batch, "cpu", k=k)
            recalls[f"{way}@{k}"] = (found > 0).float().mean().item()
    return {"seconds": time.perf_counter() - start, "peak_mb": peak_mb(), "recalls": recalls}


def peak_mb() -> float:
    """Give the most memory this process has held."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


CHILDREN = {"ours": measure_ours, "peer": measure_peer}


if __name__ == "__main__":
    main()
