"""What index, search, info, remove and verify do and print."""

import csv
import io
import json

import numpy as np
import pytest
from rich.console import Console

from crossmodal import Collection, Hit
from crossmodal.collection import VerifyReport
from ui.commands.index import SKIPPED_SHOWN
from ui.commands.search import table
from ui.progress import Lines


def index(run, folder, path, *options):
    return run("index", folder, path, "--encoder", "toy", *options)


# -- index --------------------------------------------------------------------------------------------------


def test_index_counts_what_it_did_and_embeds_nothing_twice(run, picture_folder, tmp_path, toy_encoder):
    first = json.loads(index(run, picture_folder, tmp_path / "c", "--json").stdout)
    assert first.pop("seconds") >= 0
    assert first == {
        "added": 8,
        "updated": 0,
        "unchanged": 0,
        "removed": 0,
        "skipped": [],
        "texts_cut": 0,
        "encoder": "toy",
        "rows": 16,
    }
    embedded = toy_encoder.images_embedded, toy_encoder.texts_embedded
    second = json.loads(run("index", picture_folder, tmp_path / "c", "--json").stdout)
    assert (second["added"], second["unchanged"]) == (0, 8)
    assert (toy_encoder.images_embedded, toy_encoder.texts_embedded) == embedded

    (picture_folder / "red.txt").write_text("a red picture, looked at again\n")
    (picture_folder / "blue.png").unlink()
    third = json.loads(run("index", picture_folder, tmp_path / "c", "--json").stdout)
    assert (third["updated"], third["unchanged"], third["removed"], third["rows"]) == (1, 6, 1, 14)


def test_index_names_what_it_skips_and_why(run, picture_folder, tmp_path):
    (picture_folder / "broken.png").write_text("no picture")
    told = index(run, picture_folder, tmp_path / "c")
    assert told.exit_code == 0
    summary, skipped = told.stdout.splitlines()
    assert summary.startswith("8 added, 1 skipped in ")
    assert skipped.startswith("skipped broken.png: ")
    assert str(tmp_path) not in skipped
    (again,) = json.loads(run("index", picture_folder, tmp_path / "c", "--json").stdout)["skipped"]
    assert again[0] == "broken.png"


def test_index_counts_by_reason_what_is_too_much_to_name(run, picture_folder, tmp_path):
    for i in range(SKIPPED_SHOWN + 5):
        (picture_folder / f"broken{i:02}.png").write_text("no picture")
    lines = index(run, picture_folder, tmp_path / "c").stdout.splitlines()
    assert len(lines) == 1 + SKIPPED_SHOWN + 1
    assert lines[-1].startswith("skipped 5 more: 5 ")


@pytest.mark.parametrize("there_before", [False, True])
def test_index_of_nothing_usable_is_an_error_with_the_counts_and_leaves_no_collection(
    run, tmp_path, there_before
):
    (tmp_path / "p").mkdir()
    for i in range(3):
        (tmp_path / "p" / f"{i}.png").write_text("no picture")
    if there_before:
        (tmp_path / "c").mkdir()
    result = index(run, tmp_path / "p", tmp_path / "c", "--json")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "nothing usable; all 3 skipped (3 " in result.stderr
    assert not (tmp_path / "c").exists()


def test_index_of_nothing_usable_leaves_a_full_collection_alone(run, tmp_path, picture_folder):
    assert run("index", picture_folder, tmp_path / "c", "--encoder", "toy").exit_code == 0
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.jpg").write_text("no picture")
    assert run("index", tmp_path / "other", tmp_path / "c").exit_code == 2
    assert run("info", tmp_path / "c", "--json").exit_code == 0


def test_index_says_whose_records_it_replaced(run, picture_folder, tmp_path, make_picture):
    make_picture(tmp_path / "2020" / "red.png", "blue", seed=20)
    make_picture(tmp_path / "2020" / "new.png", "green", seed=21)
    make_picture(tmp_path / "2021" / "blue.png", "blue", seed=22)
    make_picture(tmp_path / "2021" / "black.png", "blue", seed=23)
    assert "replaced" not in index(run, picture_folder, tmp_path / "c").stdout
    summary, replaced = index(run, tmp_path / "2020", tmp_path / "c").stdout.splitlines()
    assert summary.startswith("1 added, 1 updated in ")
    assert replaced == f"1 of them replaced a record with the same key from {picture_folder}"
    (record,) = Collection.open(tmp_path / "c").get(["red.png"])
    assert record.uri == str(tmp_path / "2020" / "red.png")
    summary, replaced = index(run, tmp_path / "2021", tmp_path / "c").stdout.splitlines()
    assert replaced == f"2 of them replaced records with the same key from {picture_folder}"
    assert "replaced" not in json.loads(index(run, picture_folder, tmp_path / "c", "--json").stdout)


def test_index_of_a_missing_source_leaves_nothing_behind(run, tmp_path):
    result = index(run, tmp_path / "none", tmp_path / "c")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "c").exists()


def test_index_takes_the_columns_that_are_named(run, picture_folder, tmp_path):
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["where", "says", "no"], ["pictures/red.png", "a red thing", "7"]])
    columns = ["--image-column", "where", "--caption-column", "says", "--key-column", "no"]
    assert index(run, tmp_path / "t.csv", tmp_path / "c", *columns).exit_code == 0
    (record,) = Collection.open(tmp_path / "c").get(["7"])
    assert record.captions == ("a red thing",)


@pytest.mark.parametrize(("name", "said"), [("tay", "Did you mean 'toy'?"), ("", "Unknown encoder ''")])
def test_an_unknown_encoder_leaves_nothing_behind(run, picture_folder, tmp_path, name, said):
    result = run("index", picture_folder, tmp_path / "c", "--encoder", name)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not (tmp_path / "c").exists()


# -- search -------------------------------------------------------------------------------------------------


def search(run, collection, *options):
    result = run("search", collection.path, *options, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_search_prints_the_contract_and_nothing_else(run, collection):
    found = search(run, collection, "--text", "a red picture", "-k", 2)
    assert found["collection"] == str(collection.path)
    assert found["took_ms"] > 0
    best = found["hits"][0]
    assert sorted(best) == ["key", "metadata", "score", "target", "text", "uri"]
    assert best["key"].startswith("red-")
    assert best["text"] == "a red picture"
    assert best["metadata"] == {"number": int(best["key"][4:-4])}


def test_search_sums_its_terms_as_said(run, collection, toy_encoder, tmp_path):
    picture = tmp_path / "p" / "blue-2.png"
    found = search(
        run, collection, "--text", "a red picture", "--text", "green", "--image", picture,
        "--not-text", "yellow", "-k", 12,
    )  # fmt: skip
    texts = toy_encoder.encode_texts(["a red picture", "green", "yellow"])
    query = texts[0] + texts[1] - 0.5 * texts[2] + toy_encoder.encode_images([picture])[0]
    query /= np.linalg.norm(query)
    files = sorted((tmp_path / "p").iterdir())
    scores = dict(zip([f.name for f in files], toy_encoder.encode_images(files) @ query, strict=True))
    assert {hit["key"]: hit["score"] for hit in found["hits"]} == pytest.approx(scores, abs=1e-6)


def test_search_obeys_filter_target_and_least_score(run, collection):
    found = search(run, collection, "--text", "red", "--where", "number >= 6 AND number < 9", "-k", 10)
    assert sorted(hit["metadata"]["number"] for hit in found["hits"]) == [6, 7, 8]
    words = search(run, collection, "--text", "a red picture", "--to", "text", "-k", 1)["hits"]
    assert [(hit["target"], hit["text"]) for hit in words] == [("text", "a red picture")]
    red = search(run, collection, "--text", "red", "--min-score", 0.5, "-k", 12)["hits"]
    assert {hit["text"] for hit in red} == {"a red picture"}


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--text", ""], "empty"),
        (["--text", "x", "-k", "0"], "0"),
        (["--text", "x", "-k", "-3"], "-3"),
        (["--image", "none.png"], "none.png"),
        (["--text", "x", "--where", "nummer = 1"], "number"),
        (["--text", "x", "--where", "number ="], "number ="),
    ],
)
def test_a_search_that_cannot_be_is_refused_in_one_line(run, collection, options, wanted):
    result = run("search", collection.path, *options, "--json")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert wanted in result.stderr


def test_a_search_off_a_terminal_gives_plain_lines(run, collection):
    result = run("search", collection.path, "--text", "red", "-k", 3)
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert all(len(row) == 5 for row in rows)
    assert "\x1b" not in result.stdout


def test_a_search_that_finds_nothing_says_so_and_is_no_error(run, collection):
    result = run("search", collection.path, "--text", "red", "--min-score", "0.999")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "nothing found" in result.stderr


@pytest.mark.parametrize("width", [48, 80, 200])
def test_the_table_fits_its_terminal_and_shows_what_is_there(width):
    hits = [
        Hit(key="k" * 90, target="image", score=0.51, uri="/p/" + "x" * 120, text="[bold]two\nlines\x1b[31m"),
        Hit(key="b", target="image", score=-0.02, uri="", text="word " * 40),
    ]
    out = io.StringIO()
    Console(file=out, width=width).print(table(hits, width))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert "\x1b" not in out.getvalue()
    assert "[bold]" in out.getvalue()
    assert "-0.020" in out.getvalue()


# -- info, remove, verify -----------------------------------------------------------------------------------


def test_info_tells_what_is_there(run, collection):
    told = dict(line.split("\t") for line in run("info", collection.path).stdout.splitlines())
    assert (told["records"], told["captions"]) == ("12", "12")
    assert told["encoder"].startswith("toy, 16 dimensions")
    assert "number (int64)" in told["columns"]
    assert told["index"].endswith("on the CPU")
    as_json = json.loads(run("info", collection.path, "--json").stdout)
    assert (as_json["records"], as_json["rows"]) == (12, 24)
    assert as_json["encoder"]["fingerprint"] == collection.encoder.card.fingerprint


def test_remove_takes_all_keys_or_none(run, collection):
    refused = run("remove", collection.path, "red-0.png", "nowhere.png")
    assert refused.exit_code == 2
    assert refused.stderr.count("\n") == 1
    assert "nowhere.png" in refused.stderr
    assert len(collection) == 12
    assert run("remove", collection.path, "red-0.png", "blue-2.png").stdout == "removed 2; 10 left\n"
    assert collection.get(["red-0.png", "blue-2.png"]) == []


def test_verify_says_whether_a_collection_is_whole(run, collection, monkeypatch):
    whole = run("verify", collection.path)
    assert whole.exit_code == 0
    assert whole.stdout.endswith("is whole\n")
    report = VerifyReport(problems=["a.png has two pictures", "b.png has none"])
    monkeypatch.setattr(Collection, "verify", lambda self, *, repair: report)
    damaged = run("verify", collection.path)
    assert damaged.exit_code == 2
    assert damaged.stdout == "problem: a.png has two pictures\nproblem: b.png has none\n"
    assert "2 problems" in damaged.stderr
    assert "--repair" in damaged.stderr


# -- progress -----------------------------------------------------------------------------------------------


def test_progress_off_a_terminal_is_a_line_now_and_then(capsys, monkeypatch):
    monkeypatch.setattr("ui.progress.QUIET_SECONDS", 0.0)
    with Lines("indexing") as shown:
        shown.update(512, 2650)
        shown.update(600, None)
    out, errors = capsys.readouterr()
    assert out == ""
    first, second = errors.splitlines()
    assert first.startswith("indexing: 512 of 2,650, ")
    assert first.endswith(" s left")
    assert second.startswith("indexing: 600, ")


def test_index_says_when_it_removes_nothing_as_a_part_could_not_be_seen(run, tmp_path, picture_folder):
    table = tmp_path / "pairs.jsonl"
    rows = [f'{{"image": "{picture_folder / name}.png", "caption": "{name}"}}' for name in ("red", "blue")]
    table.write_text("\n".join(rows))
    assert run("index", table, tmp_path / "c", "--encoder", "toy").exit_code == 0
    table.write_text(rows[0] + "\n" + rows[1][:-5])
    result = run("index", table, tmp_path / "c")
    assert result.exit_code == 0
    assert "nothing was removed" in result.output
    assert "line 2" in result.output


def test_index_that_removed_something_tells_it_even_if_all_else_was_skipped(run, tmp_path, picture_folder):
    assert run("index", picture_folder, tmp_path / "c", "--encoder", "toy").exit_code == 0
    for path in picture_folder.iterdir():
        path.unlink()
    (picture_folder / "broken.png").write_text("no picture")
    result = run("index", picture_folder, tmp_path / "c")
    assert result.exit_code == 0
    assert "8 removed" in result.output
    assert "1 skipped" in result.output
