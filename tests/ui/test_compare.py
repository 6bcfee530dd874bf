"""``crossmodal compare``: one protocol to a column, published results beside it."""

import json

import numpy as np
import pytest
from rich.console import Console

from crossmodal.evaluation import Result
from crossmodal.evaluation.comparison import compare
from crossmodal.evaluation.references import references
from ui.commands.compare import table


@pytest.fixture
def evaluated(run, tmp_path):
    """Evaluate made-up embeddings, and give the file of the result."""

    def make(name, seed=0, captions=(2, 3, 1), protocol="pairs"):
        rng = np.random.default_rng(seed)
        owner = np.repeat(np.arange(len(captions)), captions)
        np.savez(
            tmp_path / f"{name}.npz",
            image_embeddings=rng.standard_normal((len(captions), 4)),
            text_embeddings=rng.standard_normal((len(owner), 4)),
            image_of_text=owner,
        )
        output = tmp_path / f"{name}.json"
        told = run(
            "evaluate", "--embeddings", tmp_path / f"{name}.npz", "--protocol", protocol, "--output", output
        )
        assert told.exit_code == 0
        return output

    return make


def test_results_of_one_protocol_stand_side_by_side_in_percent(run, evaluated):
    files = evaluated("a", seed=1), evaluated("b", seed=2)
    document = json.loads(run("compare", *files, "--json").stdout)
    assert [row["name"] for row in document["rows"]] == ["a.npz", "b.npz"]
    for row, file in zip(document["rows"], files, strict=True):
        result = json.loads(file.read_text())
        for direction in ("text_to_image", "image_to_text"):
            for name, value in row[direction].items():
                assert value == pytest.approx(100 * result[direction][name])
        assert row["rsum"] == pytest.approx(result["rsum"])


def test_the_lines_hold_what_the_json_holds(run, evaluated):
    file = evaluated("a")
    (row,) = json.loads(run("compare", file, "--json").stdout)["rows"]
    values = [*row["image_to_text"].values(), *row["text_to_image"].values(), row["rsum"]]
    assert run("compare", file).stdout == "\t".join(["a.npz", *(f"{v:.1f}" for v in values)]) + "\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"captions": (2, 3, 2)}, "another protocol than"),
        ({"captions": (3, 2, 1)}, "other pictures or captions than"),
    ],
)
def test_different_protocols_are_not_put_in_one_column(run, evaluated, change, message):
    refused = run("compare", evaluated("a"), evaluated("b", **change))
    assert refused.exit_code == 2
    assert refused.stdout == ""
    assert message in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_published_results_follow_for_the_benchmark_they_are_of(run, evaluated):
    file = evaluated("f", captions=(5,) * 1000, protocol="flickr30k-1k")
    rows = json.loads(run("compare", file, "--json").stdout)["rows"]
    assert [row["published"] for row in rows] == [False] + [True] * (len(rows) - 1)
    clip = next(row for row in rows if row["name"] == "CLIP B/32, zero-shot")
    assert clip["image_to_text"] == {"recall@1": 78.9, "recall@5": 94.9, "recall@10": 98.2}
    assert clip["rsum"] == pytest.approx(78.9 + 94.9 + 98.2 + 58.8 + 83.6 + 90.0)
    at_one = next(row for row in rows if row["name"].startswith("BEiT-3"))
    assert (at_one["image_to_text"]["recall@5"], at_one["rsum"]) == (None, None)


@pytest.mark.parametrize("protocol", ["flickr30k-1k", "coco-5k"])
def test_published_recalls_rise_with_k(protocol):
    for reference in references(protocol):
        for recalls in reference.recalls.values():
            assert list(recalls.values()) == sorted(recalls.values()), reference.name
            assert all(0 < value < 100 for value in recalls.values())


@pytest.mark.parametrize(
    ("content", "message"),
    [("{}", "is no result of 'crossmodal evaluate'"), ("no json", "is no result"), (None, "No such file")],
)
def test_what_is_no_result_is_refused(run, tmp_path, content, message):
    if content is not None:
        (tmp_path / "r.json").write_text(content)
    refused = run("compare", tmp_path / "r.json")
    assert refused.exit_code == 2
    assert message in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_two_results_of_one_encoder_are_told_apart_by_their_files(evaluated):
    result = Result.read(evaluated("a"))
    compared = compare([("old.json", result), ("new.json", result)])
    assert [row.name for row in compared.rows] == ["a.npz (old.json)", "a.npz (new.json)"]


def test_the_table_names_its_columns(evaluated):
    console = Console(width=100, record=True)
    console.print(table(compare([("a.json", Result.read(evaluated("a")))])))
    text = console.export_text()
    assert "to words" in text
    assert text.count("R@10") == 2
