"""``crossmodal evaluate --rerank``: beside the plain measures, labelled by what it learnt from."""

import json

import numpy as np
import pytest

from crossmodal import evaluate_retrieval
from crossmodal.ranking import hubness


@pytest.fixture
def files(tmp_path):
    """Write embeddings to measure and embeddings of other pairs, a hub among the pictures of the former."""
    made = {}
    for name, seed in (("test", 1), ("train", 2)):
        rng = np.random.default_rng(seed)
        images = rng.standard_normal((60, 8))
        texts = images + rng.standard_normal((60, 8)) + 1
        images[0] = 1
        images, texts = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (images, texts))
        made[name] = images.astype(np.float32), texts.astype(np.float32)
        np.savez(
            tmp_path / f"{name}.npz",
            image_embeddings=made[name][0],
            text_embeddings=made[name][1],
            image_of_text=np.arange(60),
        )
    return tmp_path / "test.npz", tmp_path / "train.npz", made


def test_each_correction_stands_beside_the_plain_measures(run, files):
    test, train, made = files
    plain = json.loads(run("evaluate", "--embeddings", test, "--json").stdout)
    options = ("--rerank", "nnn,query-expansion", "--bank", train, "--json")
    document = json.loads(run("evaluate", "--embeddings", test, *options).stdout)
    reranked = document.pop("reranked")
    assert document == plain
    assert list(reranked) == ["nnn", "query-expansion"]
    nnn = reranked["nnn"]
    assert (nnn["transductive"], nnn["bank"]) == (False, str(train))
    (images, texts), (bank_images, bank_texts) = made["test"], made["train"]
    asking, offered = hubness.nnn(texts, images, bank_texts)
    to_image = evaluate_retrieval(offered, asking, np.arange(60)).text_to_image
    asking, offered = hubness.nnn(images, texts, bank_images)
    to_text = evaluate_retrieval(asking, offered, np.arange(60)).image_to_text
    assert nnn["text_to_image"] == pytest.approx(to_image.to_dict())
    assert nnn["image_to_text"] == pytest.approx(to_text.to_dict())
    for direction in ("text_to_image", "image_to_text"):
        gained = nnn[direction]["recall@1"] - plain[direction]["recall@1"]
        assert nnn["change"][direction]["difference"] == pytest.approx(gained)


@pytest.mark.parametrize(
    ("name", "bank", "transductive"),
    [
        ("nnn", True, False),
        ("nnn", False, True),
        ("dual-softmax", True, True),
        ("query-expansion", False, False),
    ],
)
def test_what_is_made_of_the_test_queries_is_labelled(run, files, name, bank, transductive):
    test, train, _ = files
    options = ("--bank", train) if bank else ()
    told = run("evaluate", "--embeddings", test, "--rerank", name, *options)
    assert told.exit_code == 0
    (line,) = [line for line in told.stdout.splitlines() if line.startswith(name)]
    assert ("transductive" in line) == transductive
    document = json.loads(run("evaluate", "--embeddings", test, "--rerank", name, *options, "--json").stdout)
    assert document["reranked"][name]["transductive"] == transductive


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--rerank", "nn"), "Unknown re-ranking 'nn'. Did you mean 'nnn'?"),
        (("--bank", "x.npz"), "--bank serves --rerank alone"),
        (("--rerank", "nnn", "--bank", "sample:train"), "need a --bank of embeddings"),
    ],
)
def test_what_cannot_be_reranked_is_refused_in_one_line(run, files, options, message):
    refused = run("evaluate", "--embeddings", files[0], *options)
    assert refused.exit_code == 2
    assert message in refused.stderr
    assert refused.stderr.count("\n") == 1
