"""Peak memory of a large batch with cached gradients against a small one without, for `bench_training.py`.

Each is one step of AdamW in a fresh process: ``python scripts/training_memory.py MODEL BATCH CHUNK TOKENS``;
where the chunk is the batch, the step is an ordinary one.
"""

import argparse
import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor
from training_steps import Pairs, make_model, make_pairs, scaled

from training.losses import LossSettings, Relation, Temperature, make_loss
from training.negatives.cached_gradients import cached_step

TARGET = 1.3


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Take a step with each batch."""
    small, large = (
        in_fresh_process(options.model, batch, options.chunk, options.tokens)
        for batch in (options.chunk, options.batch)
    )
    ratio = large["peak_mib"] / small["peak_mib"]
    return {"model": options.model, "steps": [small, large], "ratio": ratio, "met": ratio <= TARGET}


def table(figures: dict[str, Any]) -> Table:
    """Lay the figures out."""
    title = f"One step of {figures['model']}: {figures['ratio']:.2f} times the memory"
    layout = Table(title=f"{title} (target: {TARGET} at most)")
    for column in ("batch", "in chunks of", "peak memory", "before the step", "pairs a second"):
        layout.add_column(column, justify="right")
    for step in figures["steps"]:
        layout.add_row(
            f"{step['batch']:,}",
            str(step["chunk"]) if step["batch"] > step["chunk"] else "",
            f"{step['peak_mib']:,.0f} MiB",
            f"{step['before_mib']:,.0f} MiB",
            f"{step['batch'] / step['seconds']:.1f}",
        )
    return layout


def in_fresh_process(*arguments: object) -> dict[str, Any]:
    """Run this file by itself, and read the figures that it prints."""
    command = [sys.executable, __file__, *map(str, arguments)]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    figures: dict[str, Any] = json.loads(answer.splitlines()[-1])
    return figures


def main() -> None:
    """Take one step and print what it took."""
    name, *sizes = sys.argv[1:]
    batch, chunk, tokens = map(int, sizes)
    model = make_model(name, tokens)
    pairs = make_pairs(model, batch)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5)
    before, start = peak_mib(), time.perf_counter()
    loss = cached(model, pairs, chunk) if chunk < batch else ordinary(model, pairs)
    optimiser.step()
    seconds = time.perf_counter() - start
    figures = {"batch": batch, "chunk": chunk, "before_mib": before, "peak_mib": peak_mib()}
    print(json.dumps({**figures, "seconds": seconds, "loss": loss.item()}))


def ordinary(model: Any, pairs: Pairs) -> Tensor:
    """Take the gradient of the whole batch at once."""
    images = model.encode_image(scaled(pairs.pixels), normalize=True)
    texts = model.encode_text(pairs.ids, normalize=True)
    value = loss_of(model, images, texts)
    value.backward()
    return value.detach()


def cached(model: Any, pairs: Pairs, chunk: int) -> Tensor:
    """Take it with cached gradients."""

    def encode_pixels(pixels: Tensor) -> Tensor:
        return model.encode_image(scaled(pixels), normalize=True)

    return cached_step(
        [partial(encode_pixels, part) for part in pairs.pixels.split(chunk)],
        [partial(model.encode_text, part, normalize=True) for part in pairs.ids.split(chunk)],
        partial(loss_of, model),
    )


def loss_of(model: Any, images: Tensor, texts: Tensor) -> Tensor:
    """Give InfoNCE with one caption a picture."""
    groups = torch.arange(len(images))
    temperature = Temperature(model.logit_scale.exp())
    return make_loss(LossSettings())(images, texts, Relation.from_groups(groups, groups), temperature)


def peak_mib() -> float:
    """Give the most memory that this process has ever held, as Linux counts it."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
