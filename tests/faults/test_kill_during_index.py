"""``crossmodal index`` may be killed at any moment: the collection opens, a rerun does only what is left."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from crossmodal import Collection, open_source
from crossmodal.collection.schema import embedding_matrix

PICTURES = 250
KILLS = 10


CHILD = """
import crossmodal.collection.adding as adding
from ui.cli import main

adding.COMMIT_RECORDS = 24  # many commits, so that a kill falls between and into them
main()
"""


def index(source: Path, collection: Path) -> subprocess.Popen:
    """Start ``crossmodal index`` in a process of its own."""
    command = [
        sys.executable,
        "-c",
        CHILD,
        "index",
        str(source),
        str(collection),
        "--json",
        "--batch-size",
        "8",
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen) -> dict:
    out, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    return json.loads(out)


def rows_of(collection: Path) -> dict[tuple, np.ndarray]:
    """Read every row with its vector, past the library's reading of records."""
    rows = {}
    for table in Collection.open(collection)._current().iterate(embeddings=True):
        facts = table.drop_columns(["embedding", "_rowid", "_stamp", "_source"]).to_pylist()
        for row, vector in zip(facts, embedding_matrix(table), strict=True):
            identity = tuple(sorted(row.items()))
            assert identity not in rows
            rows[identity] = vector
    return rows


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A folder of pictures of the sample with their captions."""
    folder = tmp_path_factory.mktemp("source")
    for i, record in zip(range(PICTURES), open_source("sample:train"), strict=False):
        (folder / f"{i:04}.webp").write_bytes(record.image)
        (folder / f"{i:04}.txt").write_text(record.captions[0])
    return folder


@pytest.mark.slow
def test_killed_at_ten_random_moments_the_result_is_as_if_never_killed(source, tmp_path):
    whole = tmp_path / "whole"
    started = time.monotonic()
    assert finish(index(source, whole))["added"] == PICTURES
    duration = time.monotonic() - started
    expected = rows_of(whole)
    chance = random.Random(7)
    stopped_in_the_middle = 0
    for attempt in range(KILLS):
        path = tmp_path / f"killed-{attempt}"
        process = index(source, path)
        time.sleep(duration * chance.uniform(0.05, 0.95))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        there = 0
        if (path / "records.lance").exists() and any(path.glob("records.lance/_versions/*.manifest")):
            collection = Collection.open(path)
            assert collection.verify().ok
            there = len(collection)
        stopped_in_the_middle += 0 < there < PICTURES
        report = finish(index(source, path))
        assert report["unchanged"] == there
        assert report["added"] == PICTURES - there
        assert Collection.open(path).verify().ok
        rows = rows_of(path)
        assert rows.keys() == expected.keys()
        for identity, vector in rows.items():
            np.testing.assert_allclose(vector, expected[identity], atol=1e-6)
    assert stopped_in_the_middle, "no kill hit the work itself; the test shows nothing"
