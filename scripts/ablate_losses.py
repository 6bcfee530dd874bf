"""Train with InfoNCE, with hard-negative triplets and with their sum, at equal budget, and print a table.

    python scripts/ablate_losses.py [--recipe heads] [--seeds 0 1 2] [--set key=value]...

Of each run the best validation on `sample:validation` counts; a figure is the mean over the seeds, with the
standard deviation. The seed decides the order of batches, the dropout and the heads' start.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from measuring import machine

from training import read_recipe, train

LOSSES = {
    "infonce": ("loss.kind=infonce",),
    "triplet": ("loss.kind=triplet", "loss.mean_hinge_steps=8"),
    "infonce + triplet": ("loss.kind=infonce+triplet", "loss.mean_hinge_steps=8"),
}
NEW_HEADS = (
    "model.encoder=towers:efficientnet_lite0+minilm?head=linear",
    *("batch.size=512", "optimiser.lr=1e-3", "run.epochs=20", "run.patience=0"),
)
"""What the recipe `heads` begins with here: those of `lite` have seen also the validation split."""
FIGURES = ("rsum", "text_to_image.recall@1", "text_to_image.recall@10", "image_to_text.recall@1")


def main() -> None:
    """Train all, and print the table as it goes into docs/training.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--recipe", default="heads")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    chosen = [*(NEW_HEADS if options.recipe == "heads" else ()), *options.set]
    print(f"{machine('torch')}; recipe {options.recipe} {' '.join(chosen)}\n")
    print("| loss | rSum | text to image R@1 | R@10 | image to text R@1 |\n|-|-|-|-|-|")
    for name, sets in LOSSES.items():
        runs = [best_of(options.recipe, [*sets, *chosen], seed) for seed in options.seeds]
        cells = (spread([100 * run[f] if "@" in f else run[f] for run in runs]) for f in FIGURES)
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def best_of(name: str, sets: list[str], seed: int) -> dict[str, Any]:
    """Train once, and give the figures of the best validation."""
    encoder = read_recipe(name, sets).model.encoder
    start = f"{encoder}{'&' if '?' in encoder else '?'}seed={seed}"
    own = (f"run.seed={seed}", "run.save_every=1000000", f"model.encoder={start}")
    recipe = read_recipe(name, [*sets, *own])
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run"
        outcome = train("sample:train", output, recipe, validation="sample:validation")
        lines = map(json.loads, (output / "metrics.jsonl").read_text().splitlines())
        found: dict[str, Any] = next(
            line for line in lines if line["step"] == outcome.best_step and line.get("rsum") == outcome.rsum
        )
    return found


def spread(values: list[float]) -> str:
    """Give mean and standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.1f} ± {deviation:.1f}"


if __name__ == "__main__":
    main()
