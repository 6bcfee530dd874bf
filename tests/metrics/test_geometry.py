"""How embeddings lie, against the definitions written out."""

import itertools

import numpy as np
import pytest

import crossmodal.metrics.geometry as geometry
from crossmodal.metrics.geometry import measure_geometry


@pytest.fixture(params=[2**23, 200], ids=["one block", "many blocks"])
def rows(request, monkeypatch):
    monkeypatch.setattr(geometry, "SCORES_PER_BLOCK", request.param)
    monkeypatch.setattr(geometry, "NUMBERS_PER_GATHER", request.param)
    rng = np.random.default_rng(0)
    owner = rng.integers(0, 25, 60)
    images, texts = rng.standard_normal((25, 6)) + 0.5, rng.standard_normal((60, 6)) - 0.5
    return images, texts, owner


def test_measures_are_those_of_the_definitions(rows):
    images, texts, owner = rows
    seen = measure_geometry(3 * images, texts, owner)
    images, texts = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (images, texts))
    assert seen.modality_gap == pytest.approx(np.linalg.norm(images.mean(0) - texts.mean(0)), abs=1e-5)
    apart = [np.sum((images[o] - t) ** 2) for o, t in zip(owner, texts, strict=True)]
    assert seen.alignment == pytest.approx(np.mean(apart), abs=1e-5)
    for side, value in ((images, seen.image_uniformity), (texts, seen.text_uniformity)):
        pairs = [np.exp(-2 * np.sum((a - b) ** 2)) for a, b in itertools.permutations(side, 2)]
        assert value == pytest.approx(np.log(np.mean(pairs)), abs=1e-4)
    for asking, offered, value in ((texts, images, seen.image_hubness), (images, texts, seen.text_hubness)):
        counts = np.zeros(len(offered))
        for query in asking:
            counts[np.argsort(-(offered @ query))[:10]] += 1
        apart = counts - counts.mean()
        assert value == pytest.approx((apart**3).mean() / counts.std() ** 3, abs=1e-6)


def test_a_hub_skews_the_counts(rows):
    images, texts, owner = rows
    before = measure_geometry(images, texts, owner).image_hubness
    many = np.concatenate([images, np.random.default_rng(1).standard_normal((100, 6)) + 0.5])
    many[0] = texts.mean(axis=0) * 10
    assert measure_geometry(many, texts, owner).image_hubness > max(1, before)


def test_one_pair_has_no_spread():
    seen = measure_geometry(np.array([[1.0, 0]]), np.array([[0, 2.0]]), np.array([0])).to_dict()
    assert seen == {
        "modality_gap": pytest.approx(2**0.5),
        "alignment": pytest.approx(2),
        "image_uniformity": 0,
        "text_uniformity": 0,
        "image_hubness": 0,
        "text_hubness": 0,
    }
