"""ECCV Caption and CxC on COCO's real ids, against the authors' own package."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from crossmodal.errors import EvaluationError, MissingPackageError
from crossmodal.evaluation import find_protocol, measure, read_embeddings
from crossmodal.evaluation.judgements import read_judgements
from crossmodal.evaluation.pairs import Pairs

eccv_caption = pytest.importorskip("eccv_caption")
DATA = Path(eccv_caption.__file__).parent / "data"
WAYS = {"text_to_image": "t2i", "image_to_text": "i2t"}


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """Embeddings of COCO's test pictures by their real ids, in the file's order; no two scores tie."""
    captions = np.load(DATA / "coco_test_ids.npy").tolist()
    image_of = json.loads((DATA / "original_caption_to_image.json").read_text())
    images = [image_of[str(caption)][0] for caption in captions[::5]]
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((5000, 24)).astype(np.float32)
    texts = np.repeat(vectors, 5, axis=0) + 1.1 * rng.standard_normal((25000, 24)).astype(np.float32)
    path = tmp_path_factory.mktemp("coco") / "coco.npz"
    np.savez(
        path,
        image_embeddings=vectors,
        text_embeddings=texts,
        image_of_text=np.repeat(np.arange(5000), 5),
        image_ids=np.array(images),
    )
    scores = vectors.astype(np.float64) @ texts.astype(np.float64).T
    best = {"i2t": np.argsort(-scores, axis=1)[:, :400], "t2i": np.argsort(-scores.T, axis=1)[:, :400]}
    ranked = {
        "i2t": dict(zip(images, np.array(captions)[best["i2t"]].tolist(), strict=True)),
        "t2i": dict(zip(captions, np.array(images)[best["t2i"]].tolist(), strict=True)),
    }
    return path, ranked


@pytest.fixture(scope="module")
def theirs(coco):
    return eccv_caption.Metrics().compute_all_metrics(
        coco[1]["i2t"],
        coco[1]["t2i"],
        target_metrics=(
            *("eccv_r1", "eccv_map_at_r", "eccv_rprecision"),
            *("coco_1k_recalls", "coco_5k_recalls", "cxc_recalls"),
        ),
        Ks=(1, 5, 10),
    )


def ours(coco, name):
    protocol = find_protocol(name)
    return measure(read_embeddings(coco[0]), protocol.with_captions(5)).result({}).measures


@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("eccv-caption", {"recall@1": "eccv_r1", "map@r": "eccv_map_at_r", "r_precision": "eccv_rprecision"}),
        ("cxc", {f"recall@{k}": f"cxc_r{k}" for k in (1, 5, 10)}),
        ("coco-5k", {f"recall@{k}": f"coco_5k_r{k}" for k in (1, 5, 10)}),
        ("coco-1k", {f"recall@{k}": f"coco_1k_r{k}" for k in (1, 5, 10)}),
    ],
)
def test_measures_equal_those_of_the_authors_package(coco, theirs, name, pairs):
    measured = ours(coco, name)
    for direction, way in WAYS.items():
        for mine, other in pairs.items():
            assert measured[direction][mine] == pytest.approx(theirs[other][way], abs=1e-9), (direction, mine)
            assert 0.01 < measured[direction][mine] < 0.99


def test_rows_need_not_stand_in_the_order_of_the_file(coco):
    pairs = read_embeddings(coco[0]).pairs
    order = np.random.default_rng(0).permutation(5000)
    straight, shuffled = (read_judgements("eccv", some) for some in (pairs, pairs.subset(order)))
    for row in range(0, 5000, 7):
        ours = straight["image_to_text"][order[row]]
        there = shuffled["image_to_text"][row]
        assert -1 not in there
        assert sorted(order[there // 5] * 5 + there % 5) == sorted(ours)


def test_other_pictures_are_refused_by_name():
    pairs = Pairs.of([str(i) for i in range(5000)], [("",) * 5] * 5000)
    with pytest.raises(EvaluationError, match=r"5,000 pictures, .* of them unknown: 0, 1, 2, 3, 4"):
        read_judgements("eccv", pairs)


def test_the_package_that_is_missing_is_named_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "eccv_caption", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'crossmodal-retrieval\[eval\]'"):
        read_judgements("cxc", Pairs.of(["1"], [("",) * 5]))
