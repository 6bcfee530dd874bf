"""Measure training: memory of large batches, and two processes against one. Exit 1 where a target is missed.

    python scripts/bench_training.py
    python scripts/bench_training.py --only memory --model ViT-B-32
    python scripts/bench_training.py --json training.json

A part is a module beside this file, with ``measure(options)``, which gives figures for JSON, ``met`` among
them, and ``table(figures)``, which lays them out.
"""

import argparse
import json
import sys
from pathlib import Path
from types import ModuleType

import training_frozen
import training_memory
import training_processes
import training_step
from measuring import machine
from rich.console import Console

PACKAGES = ("torch", "open-clip-torch", "accelerate", "openvino")
PARTS: dict[str, ModuleType] = {
    "frozen": training_frozen,
    "step": training_step,
    "memory": training_memory,
    "processes": training_processes,
}


def main() -> None:
    """Run the parts that the command line asks for, and print a table of each."""
    options = parse_options()
    console = Console()
    console.print(machine(*PACKAGES))
    figures = {}
    for name in options.only:
        figures[name] = PARTS[name].measure(options)
        console.print(PARTS[name].table(figures[name]))
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(*PACKAGES), **figures}, indent=2) + "\n")
    sys.exit(0 if all(part["met"] for part in figures.values()) else 1)


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS), metavar="PART")
    parser.add_argument("--model", default="ViT-S-32", help="an architecture of open_clip, weights random")
    parser.add_argument("--tokens", type=int, default=16, help="length of the captions")
    parser.add_argument("--batch", type=int, default=1024, help="the large batch, in memory")
    parser.add_argument("--chunk", type=int, default=64, help="the small batch, and a chunk of the large one")
    parser.add_argument("--pictures", type=int, default=1024, help="of the sample, for frozen towers")
    parser.add_argument("--step-model", default="ViT-B-32", help="what is fine-tuned step by step")
    parser.add_argument("--step-batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=50, help="of fine-tuning")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
