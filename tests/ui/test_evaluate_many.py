"""``crossmodal evaluate`` with several encoders: resumable, and one that fails loses nothing."""

import json

import pytest

import crossmodal.encoders


@pytest.fixture
def encoders(monkeypatch, toy_encoder):
    """Know two encoders, ``toy`` and ``other``."""
    other = type(toy_encoder)("other")
    monkeypatch.setitem(crossmodal.encoders._CATALOGUE, "toy", lambda *_: toy_encoder)
    monkeypatch.setitem(crossmodal.encoders._CATALOGUE, "other", lambda *_: other)
    return toy_encoder, other


def many(run, folder, output, *names):
    return run("evaluate", folder, *(f"--encoder={name}" for name in names), "--output", output, "--json")


def test_several_encoders_stand_side_by_side_and_each_has_its_file(run, encoders, picture_folder, tmp_path):
    told = many(run, picture_folder, tmp_path / "r", "toy", "other")
    assert told.exit_code == 0
    rows = json.loads(told.stdout)["rows"]
    assert [row["name"] for row in rows] == ["toy", "other"]
    written = {json.loads(path.read_text())["encoder"]["name"]: path for path in (tmp_path / "r").iterdir()}
    for row in rows:
        alone = json.loads(run("evaluate", picture_folder, f"--encoder={row['name']}", "--json").stdout)
        assert json.loads(written[row["name"]].read_text()) == alone
        assert row["rsum"] == pytest.approx(alone["rsum"])


def test_what_is_measured_is_not_measured_again(run, encoders, picture_folder, tmp_path):
    many(run, picture_folder, tmp_path / "r", "toy", "other")
    embedded = [encoder.images_embedded for encoder in encoders]
    assert many(run, picture_folder, tmp_path / "r", "toy", "other").exit_code == 0
    assert [encoder.images_embedded for encoder in encoders] == embedded
    run(
        "evaluate",
        picture_folder,
        "--encoder=toy",
        "--encoder=other",
        "--captions=1",
        "--output",
        tmp_path / "r",
    )
    assert encoders[0].images_embedded > embedded[0]


def test_one_that_fails_does_not_lose_the_others(run, encoders, picture_folder, tmp_path):
    told = many(run, picture_folder, tmp_path / "r", "toy", "nothing-like-it", "other")
    assert told.exit_code == 2
    assert [row["name"] for row in json.loads(told.stdout)["rows"]] == ["toy", "other"]
    assert "nothing-like-it is not measured: Unknown encoder" in told.stderr
    assert "1 of 3 encoders could not be measured: nothing-like-it" in told.stderr


def test_several_encoders_without_a_folder_are_refused(run, encoders, picture_folder):
    refused = run("evaluate", picture_folder, "--encoder=toy", "--encoder=other")
    assert refused.exit_code == 2
    assert "need --output FOLDER" in refused.stderr
