"""The command line with an encoder that needs no tower, in this process or in one of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import crossmodal.encoders
from crossmodal import Collection, Record
from ui.cli import main

WITH_TOY = """
import importlib.util, os, sys, time
import crossmodal.encoders
spec = importlib.util.spec_from_file_location("shared_fixtures", os.environ["SHARED_FIXTURES"])
shared = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shared)

class Slow(shared.ToyEncoder):
    def embed_pixels(self, pixels):
        time.sleep(float(os.environ.get("SECONDS_PER_BATCH", "0")))
        return super().embed_pixels(pixels)

for name in ("toy", "lite"):
    crossmodal.encoders._CATALOGUE[name] = lambda *_: Slow()
from ui.cli import main
main()
"""

Run = Callable[..., Result]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def run(toy_encoder, monkeypatch) -> Run:
    """Run ``crossmodal`` in this process; the encoder ``toy`` is known."""
    monkeypatch.setitem(crossmodal.encoders._CATALOGUE, "toy", lambda *_: toy_encoder)
    return lambda *arguments: CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture
def start() -> Start:
    """Start ``crossmodal`` in a process of its own; the encoders ``toy`` and ``lite`` are the toy there."""
    shared = Path(__file__).parents[1] / "conftest.py"

    def begin(
        *arguments: object,
        seconds_per_batch: float = 0,
        python: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
    ) -> "subprocess.Popen[str]":
        wanted = {"SHARED_FIXTURES": str(shared), "SECONDS_PER_BATCH": str(seconds_per_batch)}
        command = [sys.executable, *python, "-c", WITH_TOY, *map(str, arguments)]
        return subprocess.Popen(
            command,
            env=os.environ | wanted | (environment or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return begin


@pytest.fixture
def collection(tmp_path, toy_encoder, make_picture) -> Collection:
    """Twelve pictures in four colours, with captions and a column ``number``."""
    made = Collection.create(tmp_path / "c", toy_encoder)
    records = []
    for i in range(12):
        colour = ("red", "green", "blue", "yellow")[i % 4]
        path = make_picture(tmp_path / "p" / f"{colour}-{i}.png", colour, seed=i)
        caption = f"a {colour} picture"
        records.append(
            Record(key=path.name, image=path, captions=(caption,), metadata={"number": i}, uri=str(path))
        )
    made.add(records)
    return made
