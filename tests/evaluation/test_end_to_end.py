"""Flickr30K and COCO in their published layout, from the command line, against plain sorting."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

import crossmodal.encoders
from crossmodal import open_source
from ui.cli import main


def share_found(scores: np.ndarray, relevant: np.ndarray, k: int) -> float:
    """Give the share of rows with something relevant among the k highest, equals with the relevant last."""
    order = np.lexsort((relevant, -scores), axis=1)
    return float(np.take_along_axis(relevant, order, axis=1)[:, :k].any(axis=1).mean())


@pytest.mark.parametrize(
    ("dataset", "splits", "protocol"),
    [
        ("flickr30k", {"train": 4, "val": 3, "test": 1000}, "flickr30k-1k"),
        ("coco", {"train": 4, "restval": 3, "val": 2, "test": 40}, "pairs"),
    ],
)
def test_a_miniature_gives_what_plain_sorting_gives(
    karpathy, toy_encoder, monkeypatch, dataset, splits, protocol
):
    monkeypatch.setitem(crossmodal.encoders._CATALOGUE, "toy", lambda *_: toy_encoder)
    spec = karpathy(dataset, splits) + "&split=test"
    told = CliRunner().invoke(main, ["evaluate", spec, "--encoder", "toy", "--protocol", protocol, "--json"])
    assert told.exit_code == 0, told.stderr
    document = json.loads(told.stdout)
    records = list(open_source(spec))
    assert len(records) == splits["test"]
    assert document["protocol"]["images"] == splits["test"]
    assert document["protocol"]["texts"] == 5 * splits["test"]
    images = toy_encoder.encode_images([record.image for record in records]).astype(np.float64)
    texts = toy_encoder.encode_texts([text for record in records for text in record.captions])
    scores = (images @ texts.astype(np.float64).T).astype(np.float32)
    relevant = np.repeat(np.eye(len(records), dtype=bool), 5, axis=1)
    for k in (1, 5, 10):
        assert document["image_to_text"][f"recall@{k}"] == pytest.approx(share_found(scores, relevant, k))
        assert document["text_to_image"][f"recall@{k}"] == pytest.approx(share_found(scores.T, relevant.T, k))
