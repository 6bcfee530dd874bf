"""Runs of small twins on pictures made on the spot."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from training import Outcome, Recipe, read_recipe, train

SMALL = ("batch.size=8", "run.epochs=3", "batch.apart=false", "optimiser.lr=1e-3", "run.held_out=0.25")


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """Models as small as these only wait for torch's threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def pairs(tmp_path: Path, make_picture: Callable[..., Path]) -> str:
    """Give a table of 32 pictures in eight colours, each with two captions."""
    rows = []
    colours = ("red", "green", "blue", "yellow", "black", "white", "orange", "purple")
    for number in range(32):
        colour = colours[number % 8]
        picture = make_picture(tmp_path / "pictures" / f"{number:02}.png", colour, number)
        captions = [f"a {colour} picture {number // 8}", f"{colour} {number // 8}"]
        rows.append({"image": str(picture), "captions": captions, "key": f"k{number:02}"})
    table = tmp_path / "pairs.jsonl"
    table.write_text("\n".join(json.dumps(row) for row in rows))
    return str(table)


@pytest.fixture
def small(tiny: Callable[..., str]) -> Callable[..., Recipe]:
    """Give a recipe for small towers: ``small("heads", "run.epochs=2")``."""

    def make(name: str = "finetune", *overrides: str) -> Recipe:
        return read_recipe(name, [f"model.encoder={tiny()}", *SMALL, *overrides])

    return make


@pytest.fixture
def go(pairs: str, tmp_path: Path) -> Callable[..., Outcome]:
    """Train on the pairs: ``go("a", recipe)`` into the folder ``a``."""

    def run(name: str, recipe: Recipe, **options: Any) -> Outcome:
        return train(pairs, tmp_path / name, recipe, **options)

    return run


@pytest.fixture
def lines(tmp_path: Path) -> Callable[[str], list[dict[str, Any]]]:
    """Give the lines of a run's ``metrics.jsonl``."""

    def read(name: str) -> list[dict[str, Any]]:
        content = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in content]

    return read
