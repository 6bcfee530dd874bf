"""Two processes against one with the whole batch: loss and gradients, for `bench_training.py`.

``torchrun --nproc_per_node 2 scripts/training_processes.py MODEL TOKENS KIND FILE`` writes what they found,
and so does ``python`` with the same arguments for one.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from rich.table import Table
from safetensors.torch import load_file, save_file
from training_steps import make_model, make_pairs, scaled

from training.losses import LossSettings, Relation, Temperature, make_loss
from training.negatives.gather import gather_pairs

TARGET = 1e-5
BATCH = 16
KINDS = ("infonce", "infonce+triplet")
LAUNCH = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
"""Accelerate's own ``launch --cpu --num_processes 2`` starts a single process where MPI has no host file."""


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Take the gradient of the same batch in one process and in two."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            files = [Path(folder) / f"{kind} {processes}.safetensors" for processes in (1, 2)]
            for file, launch in zip(files, ((), LAUNCH), strict=True):
                arguments = (__file__, options.model, str(options.tokens), kind, str(file))
                subprocess.run([sys.executable, *launch, *arguments], check=True)
            results.append({"loss": kind, **difference(*map(load_file, files))})
    met = all(max(result["of_loss"], result["of_gradients"]) <= TARGET for result in results)
    return {"model": options.model, "batch": BATCH, "results": results, "met": met}


def difference(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> dict[str, float]:
    """Give the largest differences, and the largest gradient to hold them against."""
    assert one.keys() == two.keys()
    assert (int(one.pop("processes")), int(two.pop("processes"))) == (1, 2)
    gradients = [name for name in one if name != "loss"]
    return {
        "of_loss": float((one["loss"] - two["loss"]).abs()),
        "of_gradients": max(float((one[name] - two[name]).abs().max()) for name in gradients),
        "largest_gradient": max(float(one[name].abs().max()) for name in gradients),
    }


def table(figures: dict[str, Any]) -> Table:
    """Lay the figures out."""
    title = f"Two processes against one: {figures['model']}, batch {figures['batch']}"
    layout = Table(title=f"{title} (target: {TARGET:g} at most)")
    layout.add_column("loss")
    for column in ("difference of the loss", "of any gradient", "largest gradient"):
        layout.add_column(column, justify="right")
    for result in figures["results"]:
        numbers = (f"{result[name]:.1e}" for name in ("of_loss", "of_gradients", "largest_gradient"))
        layout.add_row(result["loss"], *numbers)
    return layout


def main() -> None:
    """Be one of the processes, or the only one."""
    name, tokens, kind, file = sys.argv[1:]
    accelerator = Accelerator(cpu=True)
    model = make_model(name, int(tokens))
    pairs = make_pairs(model, BATCH)
    share = BATCH // accelerator.num_processes
    mine = slice(accelerator.process_index * share, (accelerator.process_index + 1) * share)
    groups = torch.arange(BATCH)[mine] % (BATCH - 3)  # three pictures have a second caption in the other half
    wrapped = accelerator.prepare_model(model)
    images, texts, scale = wrapped(scaled(pairs.pixels[mine]), pairs.ids[mine])
    images, texts, groups = gather_pairs(accelerator, images, texts, groups)
    relation = Relation.from_groups(groups, groups)
    loss = make_loss(LossSettings(kind=kind))(images, texts, relation, Temperature(scale))
    accelerator.backward(loss)
    if accelerator.is_main_process:
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        processes = torch.tensor(accelerator.num_processes)
        save_file({"processes": processes, "loss": loss.detach(), **gradients}, file)
    accelerator.end_training()


if __name__ == "__main__":
    main()
