"""What ``crossmodal evaluate`` tells on request: details, intervals, predictions; and two models tested."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest


@pytest.fixture
def write(tmp_path):
    """Write embeddings of eight pictures with one to three captions; the more noise, the worse."""

    def make(name, noise, seed=0, pictures=8):
        rng = np.random.default_rng(seed)
        owner = np.repeat(np.arange(pictures), rng.integers(1, 4, pictures))
        images = rng.standard_normal((pictures, 6)).astype(np.float32)
        texts = images[owner] + noise * rng.standard_normal((len(owner), 6))
        np.savez(
            tmp_path / name,
            image_embeddings=images,
            text_embeddings=texts.astype(np.float32),
            image_of_text=owner,
            image_ids=np.array([f"p{i}" for i in range(pictures)]),
            captions=np.array([f"caption {t}" for t in range(len(owner))]),
        )
        return tmp_path / name, images, texts.astype(np.float32), owner

    return make


def test_details_add_to_the_contract_and_change_nothing_of_it(run, write):
    path, _, _, owner = write("e.npz", 1.0)
    plain = json.loads(run("evaluate", "--embeddings", path, "--json").stdout)
    document = json.loads(run("evaluate", "--embeddings", path, "--json", "--details").stdout)
    details, confidence = document.pop("details"), document.pop("confidence")
    assert all(np.isfinite(value) for value in document.pop("geometry").values())
    assert document == plain
    recalls = document["text_to_image"]
    for k in (1, 5, 10):  # a caption has one picture
        assert details["text_to_image"][f"true_recall@{k}"] == pytest.approx(recalls[f"recall@{k}"])
        assert details["text_to_image"][f"precision@{k}"] == pytest.approx(recalls[f"recall@{k}"] / k)
    found = details["image_to_text"]["precision@5"] * 5 * 8
    assert found == pytest.approx(round(found))
    assert found <= len(owner)
    for direction in ("text_to_image", "image_to_text"):
        for name, (low, high) in confidence[direction].items():
            value = {**document[direction], **details[direction]}[name]
            assert low <= value <= high, name
    low, high = confidence["rsum"]
    assert low < document["rsum"] < high


def test_details_are_the_same_for_the_same_seed(run, write):
    path, *_ = write("e.npz", 1.0)
    options = ("evaluate", "--embeddings", path, "--json", "--details", "--seed")
    assert run(*options, 3).stdout == run(*options, 3).stdout
    first, other = (json.loads(run(*options, seed).stdout)["confidence"] for seed in (3, 4))
    assert first["rsum"] != other["rsum"]


def test_predictions_hold_what_each_query_found(run, write, tmp_path):
    path, images, texts, owner = write("e.npz", 1.0)
    output = tmp_path / "p.parquet"
    document = json.loads(run("evaluate", "--embeddings", path, "--json", "--predictions", output).stdout)
    rows = pq.read_table(output).to_pylist()
    scores = (images.astype(np.float64) @ texts.astype(np.float64).T).astype(np.float32)
    to_image = [row for row in rows if row["direction"] == "text_to_image"]
    assert [row["query"] for row in to_image] == list(range(len(owner)))
    for t, row in enumerate(to_image):
        order = np.argsort(-scores[:, t])
        assert row["hits"] == [f"p{i}" for i in order]
        assert row["scores"] == pytest.approx(scores[order, t])
        assert row["rank"] == order.tolist().index(owner[t]) + 1
        assert (row["image"], row["text"]) == (f"p{owner[t]}", f"caption {t}")
    to_text = [row for row in rows if row["direction"] == "image_to_text"]
    for i, row in enumerate(to_text):
        order = np.argsort(-scores[i])
        assert row["hits"] == [str(t) for t in order[:10]]
        assert row["rank"] == np.flatnonzero(owner[order] == i)[0] + 1
    for direction, some in (("text_to_image", to_image), ("image_to_text", to_text)):
        for name in ("recall@5", "mrr", "map@r", "ndcg@10"):
            assert np.mean([row[name] for row in some]) == pytest.approx(document[direction][name])


def test_two_models_are_told_apart_by_their_predictions(run, write, tmp_path):
    for name, noise in (("worse", 2.0), ("better", 0.3)):
        path, *_ = write(f"{name}.npz", noise, pictures=60)
        run("evaluate", "--embeddings", path, "--predictions", tmp_path / f"{name}.parquet")
    files = tmp_path / "worse.parquet", tmp_path / "better.parquet"
    test = json.loads(run("compare", "--test", *files, "--json").stdout)["test"]
    better = test["text_to_image"]["recall@1"]
    assert better["difference"] > 0.2
    assert better["low"] > 0
    assert better["p"] < 0.01
    same = json.loads(run("compare", "--test", files[0], files[0], "--json").stdout)["test"]
    assert {one["p"] for side in same.values() for one in side.values()} == {1.0}
    lines = run("compare", "--test", *files).stdout.splitlines()
    assert len(lines) == sum(len(side) for side in test.values())


def test_predictions_on_other_captions_are_not_tested_against_each_other(run, write, tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        path, *_ = write(f"{name}.npz", 1.0, seed)
        run("evaluate", "--embeddings", path, "--predictions", tmp_path / f"{name}.parquet")
    refused = run("compare", "--test", tmp_path / "a.parquet", tmp_path / "b.parquet")
    assert refused.exit_code == 2
    assert "different pictures or captions" in refused.stderr


def test_what_is_no_file_of_predictions_is_refused(run, tmp_path):
    (tmp_path / "a.parquet").write_text("none")
    for other in ("a.parquet", "missing.parquet"):
        refused = run("compare", "--test", tmp_path / other, tmp_path / other)
        assert refused.exit_code == 2
        assert refused.stderr.count("\n") == 1
