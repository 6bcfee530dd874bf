"""What the tests of training share: examples made on the spot."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from crossmodal.sources import open_source
from training.data.examples import Examples, read_examples

COLOURS = ("red", "green", "blue", "yellow", "black", "white", "orange", "purple")


@pytest.fixture
def make_examples(tmp_path: Path, make_picture: Callable[..., Path]) -> Callable[..., Examples]:
    """Give examples with these captions each: ``make_examples([["a dog"], ["a cat", "cat"]])``."""

    def make(captions: list[list[str]], negatives: list[list[str]] | None = None) -> Examples:
        rows = []
        for number, own in enumerate(captions):
            picture = make_picture(tmp_path / f"{number:03}.png", COLOURS[number % 8], number)
            row = {"image": picture.name, "captions": own}
            if negatives:
                row["negatives"] = negatives[number]
            rows.append(row)
        table = tmp_path / "pairs.jsonl"
        table.write_text("\n".join(json.dumps(row) for row in rows))
        return read_examples(open_source(str(table)))

    return make


class Letters:
    """A tokenizer of letters, with a mark at each end."""

    limit = 12
    padded = False

    def __call__(self, texts: list[str]) -> list[list[int]]:
        return [[1, *map(ord, text[: self.limit - 2]), 2] for text in texts]

    def lengths(self, texts: list[str]) -> list[int]:
        return [len(text) + 2 for text in texts]


@pytest.fixture
def letters() -> Letters:
    """A tokenizer of letters."""
    return Letters()
