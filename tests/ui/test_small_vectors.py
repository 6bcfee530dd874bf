"""``crossmodal index --storage --dim``: what is told, what is refused, and what a kill leaves."""

import json
import signal
import time

import pytest

from crossmodal import Collection
from crossmodal.collection.agreement import Agreement
from crossmodal.index import STORAGES
from ui.commands.index import STORAGES as OFFERED
from ui.commands.index import cost


@pytest.fixture
def folder(tmp_path, make_picture):
    for i in range(40):
        make_picture(tmp_path / "many" / f"{i:02}.png", ("red", "blue")[i % 2], seed=i)
        (tmp_path / "many" / f"{i:02}.txt").write_text(f"{('red', 'blue')[i % 2]} {i}")
    return tmp_path / "many"


def test_the_storages_offered_are_those_of_the_index():
    assert tuple(OFFERED) == STORAGES


@pytest.mark.parametrize(("option", "told"), [
    (("--storage", "int8", "--dim", "12"), "int8, 12 of 16 dimensions: "),
    (("--storage", "binary"), "binary, 16 dimensions: "),
    (("--dim", "12"), "float32, 12 of 16 dimensions: "),
])  # fmt: skip
def test_what_it_costs_is_told_on_stderr_in_one_line_and_in_json(run, folder, tmp_path, option, told):
    result = run("index", folder, tmp_path / "c", "--encoder", "toy", *option, "--json")
    assert result.exit_code == 0, result.stderr
    share = json.loads(result.stdout)["agreement"]["share"]
    [line] = [line for line in result.stderr.splitlines() if "nearest" in line]
    assert line == (
        f"{told}{share:.1%} of the ten nearest stay the same, "
        "measured with 40 queries (captions) on 40 pictures"
    )
    again = run("index", folder, tmp_path / "c", "--json")
    assert again.exit_code == 0, again.stderr
    assert "nearest" not in again.stderr
    assert json.loads(again.stdout)["unchanged"] == 40


def test_pictures_that_asked_are_named_as_such():
    figures = {"share": 0.97149, "queries": 200, "pictures": 4000, "storage": "int8"}
    assert cost(Agreement(**figures, modality="image", dim=128, whole_dim=384)) == (
        "int8, 128 of 384 dimensions: 97.1% of the ten nearest stay the same, "
        "measured with 200 queries (pictures) on 4,000 pictures"
    )


def test_a_plain_index_says_nothing_of_it(run, folder, tmp_path):
    result = run("index", folder, tmp_path / "c", "--encoder", "toy", "--json")
    assert "nearest" not in result.stderr
    assert "agreement" not in json.loads(result.stdout)


def test_a_collection_goes_on_with_what_it_was_made_with(run, folder, tmp_path):
    run("index", folder, tmp_path / "c", "--encoder", "toy", "--storage", "int8", "--dim", "12")
    for option in ((), ("--encoder", "toy"), ("--storage", "int8"), ("--encoder", "toy", "--dim", "12")):
        again = run("index", folder, tmp_path / "c", *option)
        assert again.exit_code == 0, again.stderr
    for option, told in (
        (("--storage", "binary"), "made with --storage int8, not binary; leave --storage out"),
        (("--dim", "9"), "made with --dim 12, not 9; leave --dim out"),
    ):
        refused = run("index", folder, tmp_path / "c", *option)
        assert refused.exit_code == 2
        assert told in refused.stderr
        assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize(("option", "told"), [
    (("--dim", "17"), "17 dimensions of toy are asked for, which has 16; give 1 to 16"),
    (("--dim", "0"), "--dim"),
    (("--storage", "int7"), "Did you mean 'int8'?"),
])  # fmt: skip
def test_what_cannot_be_is_refused_and_leaves_nothing_behind(run, folder, tmp_path, option, told):
    result = run("index", folder, tmp_path / "c", "--encoder", "toy", *option)
    assert result.exit_code == 2
    assert told in result.stderr
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(("storage", "told"), [
    ("float32", "float32, 16 dimensions, 64 bytes each"),
    ("int8", "int8, 16 dimensions, 20 bytes each"),
    ("binary", "binary, 16 dimensions, 2 bytes each to search and 20 to score again"),
])  # fmt: skip
def test_info_says_what_the_vectors_are_kept_as(run, folder, tmp_path, storage, told):
    run("index", folder, tmp_path / "c", "--encoder", "toy", "--storage", storage)
    assert f"vectors\t{told}\n" in run("info", tmp_path / "c").stdout
    facts = json.loads(run("info", tmp_path / "c", "--json").stdout)
    assert facts["storage"] == storage
    assert f"{facts['bytes_per_vector']} " in told


def test_info_shows_how_long_a_prefix_is(run, folder, tmp_path):
    run("index", folder, tmp_path / "c", "--encoder", "toy", "--dim", "12")
    [line] = [line for line in run("info", tmp_path / "c").stdout.splitlines() if "fingerprint" in line]
    assert line.endswith("+12")


def test_a_killed_run_of_small_vectors_is_gone_on_with(start, folder, tmp_path, toy_encoder):
    """Killed in the midst of its batches, some of which are committed."""
    options = ("index", folder, tmp_path / "c", "--storage", "int8", "--batch-size", "1", "--json")
    process = start(*options, seconds_per_batch=0.4)
    while not (there := committed(tmp_path / "c")) and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert there
    reopened = Collection.open(tmp_path / "c", toy_encoder)
    kept = len(reopened)
    assert 0 < kept < 40
    assert reopened.verify().ok
    process = start(*options)
    out, errors = process.communicate()
    assert process.returncode == 0, errors
    report = json.loads(out)
    assert (report["unchanged"], report["added"]) == (kept, 40 - kept)
    assert Collection.open(tmp_path / "c", toy_encoder).verify().ok


def committed(path) -> bool:
    return any((path / "records.lance" / "data").glob("*.lance"))
