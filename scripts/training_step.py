"""Full fine-tuning of a model on the CPU, beside open_clip's own training step, for `bench_training.py`.

Same architecture, weights, pictures and captions (the sample's), optimiser and rate; open_clip's side is what
its ``train_one_epoch`` does in float32: pixels normalised beforehand, captions padded to the model's length,
``ClipLoss``, AdamW without decay on norms and biases, the scale clamped. Ours is a step as a run takes it, in
float32 and in bfloat16.
"""

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from open_clip.loss import ClipLoss
from rich.table import Table
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from training_steps import make_model, scaled

from crossmodal.encoders import read_blueprint
from crossmodal.sources import open_source
from training import read_recipe
from training.data.batches import Batch
from training.data.examples import Examples, read_examples
from training.loop.objective import Objective
from training.loop.step import Stepper
from training.losses import make_loss
from training.model.parameter_groups import make_optimiser
from training.model.trainable import make_trainable
from training.negatives.ignored import IgnoredPairs

TARGETS = {"float32": 1.0, "bfloat16": 1.5}
CONTEXT = 77
NEAR = 0.05
"""Losses of the last steps, on average, this near to each other are equal."""

Take = Callable[[int], float]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Take the same steps with each."""
    size = options.step_batch
    examples = read_examples(open_source("sample:train"))
    # Of each caption one picture: ours would not tell apart what has equal captions, and open_clip does.
    _, rows = np.unique(examples.captions.values[examples.captions.starts[:-1]], return_index=True)
    examples = examples.take(np.sort(rows)[: 4 * size])
    with tempfile.TemporaryDirectory() as folder:
        write_model(options.step_model, Path(folder))
        spec = f"open_clip:local-dir:{folder}"
        pixels = look(spec, examples)
        ways = {
            "open_clip": theirs(options.step_model, spec, examples, pixels, size),
            **{name: ours(spec, examples, pixels, size, name, options.steps) for name in TARGETS},
        }
        seen = {name: run(take, options.steps) | {"batch": size} for name, take in ways.items()}
    base = seen["open_clip"]
    for name, target in TARGETS.items():
        seen[name]["ratio"] = base["seconds"] / seen[name]["seconds"]
        seen[name]["met"] = seen[name]["ratio"] >= target and abs(seen[name]["loss"] - base["loss"]) <= NEAR
    return {
        "model": options.step_model,
        "steps": options.steps,
        "ways": seen,
        "met": all(seen[n]["met"] for n in TARGETS),
    }


def table(figures: dict[str, Any]) -> Table:
    """Lay the figures out."""
    layout = Table(title=f"{figures['steps']} steps of {figures['model']} (targets: {TARGETS})")
    for column in ("step", "pairs a second", "times open_clip's", "loss of the last steps"):
        layout.add_column(column, justify="right")
    for name, way in figures["ways"].items():
        rate = way["batch"] * figures["steps"] / way["seconds"]
        layout.add_row(name, f"{rate:.2f}", f"{way.get('ratio', 1):.2f}", f"{way['loss']:.3f}")
    return layout


def run(take: Take, steps: int) -> dict[str, float]:
    """Take steps and time them, after one that is not counted."""
    take(0)
    began = time.perf_counter()
    losses = [take(step) for step in range(1, steps + 1)]
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "loss": float(np.mean(losses[-5:]))}


def write_model(name: str, folder: Path) -> None:
    """Write a model with random weights as open_clip does."""
    save_file(
        {k: t.contiguous() for k, t in make_model(name, CONTEXT).state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    config = {
        "model_cfg": open_clip.get_model_config(name),
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))


def look(spec: str, examples: Examples) -> Tensor:
    """Decode all pictures: uint8 (N, H, W, 3)."""
    prepare = read_blueprint(spec).preprocessing
    return torch.from_numpy(np.stack([prepare(examples.picture(row)) for row in range(len(examples))]))


def rows_of(step: int, count: int, size: int) -> Tensor:
    """Give the rows of a step's batch, by turns."""
    start = step * size % count
    return torch.arange(start, start + size)


def theirs(name: str, spec: str, examples: Examples, pixels: Tensor, size: int) -> Take:
    """Give open_clip's step."""
    model = make_model(name, CONTEXT)
    tokens = open_clip.get_tokenizer(name)([examples.texts_of(row)[0] for row in range(len(examples))])
    images = scaled(pixels)
    narrow = [p for p in model.parameters() if p.ndim < 2]
    wide = [p for p in model.parameters() if p.ndim >= 2]
    groups = [{"params": narrow, "weight_decay": 0.0}, {"params": wide, "weight_decay": 0.1}]
    optimiser = torch.optim.AdamW(groups, lr=1e-5, betas=(0.9, 0.98), eps=1e-6)
    loss_of = ClipLoss()

    def take(step: int) -> float:
        rows = rows_of(step, len(examples), size)
        optimiser.zero_grad()
        image_features, text_features, scale = model(images[rows], tokens[rows])[:3]
        loss = loss_of(image_features, text_features, scale)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        return loss.item()

    return take


def ours(spec: str, examples: Examples, pixels: Tensor, size: int, precision: str, steps: int) -> Take:
    """Give a step of a run."""
    recipe = read_recipe(
        "finetune", [f"model.encoder={spec}", "optimiser.layer_decay=1", "optimiser.warmup=0"]
    )
    blueprint = read_blueprint(spec)
    model = make_trainable(blueprint, recipe.model)
    AcceleratorState._reset_state()
    accelerator = Accelerator(cpu=True, mixed_precision="bf16" if precision == "bfloat16" else "no")
    objective = Objective(make_loss(recipe.loss), model, IgnoredPairs(examples), None, accelerator)
    stepper = Stepper(
        *(model, objective, make_optimiser(model, recipe.optimiser), recipe.optimiser),
        accelerator=accelerator,
        total=10**6,  # the rate stays where it is, as open_clip's does here
        keys=examples.keys,
        seed=0,
        chunk=0,
        most_scale=100.0,
    )
    tokens = [
        torch.tensor(ids)
        for ids in blueprint.tokenizer([examples.texts_of(r)[0] for r in range(len(examples))])
    ]

    def take(step: int) -> float:
        rows = rows_of(step, len(examples), size)
        own = [tokens[row] for row in rows.tolist()]
        numbers = torch.from_numpy(examples.captions.values)[rows]
        batch = Batch(
            epoch=0,
            step=step,
            images=pixels[rows],
            texts=pad_sequence(own, batch_first=True),
            mask=pad_sequence([torch.ones_like(ids) for ids in own], batch_first=True),
            image_groups=rows,
            text_groups=rows,
            image_rows=rows,
            text_rows=rows,
            text_numbers=numbers,
        )
        return stepper.take(step, [batch]).loss

    return take
