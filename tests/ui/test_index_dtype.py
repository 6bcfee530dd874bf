"""``crossmodal index --dtype`` and what a collection makes of it later."""

import json

import pytest

from crossmodal import Collection


def test_a_collection_is_made_in_float32_unless_told_and_refuses_another_dtype(run, picture_folder, tmp_path):
    made = run("index", picture_folder, tmp_path / "c", "--encoder", "toy")
    assert made.exit_code == 0
    assert made.stderr.splitlines()[-1] == "toy runs on numpy, float32, cpu"
    assert run("index", picture_folder, tmp_path / "c", "--dtype", "float32").exit_code == 0
    refused = run("index", picture_folder, tmp_path / "c", "--dtype", "bfloat16")
    assert refused.exit_code == 2
    assert refused.stderr.count("\n") == 1
    assert "was made in float32, not in bfloat16" in refused.stderr


def test_int8_of_an_encoder_that_has_none_leaves_no_collection(run, picture_folder, tmp_path):
    refused = run("index", picture_folder, tmp_path / "c", "--encoder", "toy", "--dtype", "int8")
    assert refused.exit_code == 2
    assert "toy has no int8 form" in refused.stderr.splitlines()[-1]
    assert not (tmp_path / "c").exists()


def test_an_unknown_dtype_is_answered_with_the_nearest(run, picture_folder, tmp_path):
    refused = run("index", picture_folder, tmp_path / "c", "--dtype", "int4")
    assert refused.exit_code == 2
    assert "Did you mean 'int8'?" in refused.stderr


@pytest.mark.parametrize(("cut", "line"), [(1, "a caption was longer"), (8, "8 captions were longer")])
def test_captions_that_were_cut_are_told(run, picture_folder, tmp_path, toy_encoder, monkeypatch, cut, line):
    long = sorted(path.read_text().strip() for path in picture_folder.glob("*.txt"))[:cut]
    monkeypatch.setattr(toy_encoder, "texts_cut", lambda texts: len(set(texts) & set(long)), raising=False)
    told = run("index", picture_folder, tmp_path / "c", "--encoder", "toy")
    assert f"{line} than the encoder reads, and cut" in told.stdout
    (tmp_path / "c2").mkdir()
    as_json = run("index", picture_folder, tmp_path / "c2", "--encoder", "toy", "--json")
    assert json.loads(as_json.stdout)["texts_cut"] == cut
    assert len(Collection.open(tmp_path / "c2", toy_encoder)) == 8
