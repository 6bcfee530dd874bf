"""Corrections against the formulas of their papers, a peer package, and hubs that were planted."""

import numpy as np
import pytest

from crossmodal import evaluate_retrieval
from crossmodal.ranking import hubness


def normalised(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(params=[2**23, 100], ids=["one block", "many blocks"])
def vectors(request, monkeypatch):
    """Queries, gallery and bank, none of one length."""
    monkeypatch.setattr(hubness, "SCORES_AT_ONCE", request.param)
    rng = np.random.default_rng(1)
    return [normalised(rng.standard_normal((rows, 6)) + 0.4) for rows in (30, 40, 50)]


def order(pair):
    queries, gallery = pair
    return np.argsort(-(queries.astype(np.float64) @ gallery.T.astype(np.float64)), axis=1)


def scores_of(vectors):
    """Give the scores of queries and of the bank, each with the gallery."""
    queries, gallery, bank = (rows.astype(np.float64) for rows in vectors)
    return queries @ gallery.T, bank @ gallery.T


def test_nnn_is_the_formula(vectors):
    s, b = scores_of(vectors)
    expected = s - 0.75 * np.sort(b, axis=0)[-12:].mean(axis=0)
    queries, gallery = hubness.nnn(*vectors, neighbours=12)
    assert queries @ gallery.T == pytest.approx(expected, abs=1e-5)


def test_nnn_equals_the_package_of_its_authors(vectors):
    peer = pytest.importorskip("nnn")
    queries, gallery, bank = vectors
    ranker = peer.NNNRanker(peer.NNNRetriever(6), gallery, bank, alternate_ks=12, alternate_weight=0.75)
    scores, rows = ranker.search(queries, 40)
    mine, items = hubness.nnn(*vectors, neighbours=12)
    assert np.array_equal(rows, order((mine, items)))
    assert scores == pytest.approx(-np.sort(-(mine @ items.T), axis=1), abs=1e-5)


def test_csls_has_the_order_of_the_formula(vectors):
    s, b = scores_of(vectors)
    nearest = np.sort(b, axis=0)[-10:].mean(axis=0)
    own = np.sort(s, axis=1)[:, -10:].mean(axis=1, keepdims=True)
    assert np.array_equal(order(hubness.csls(*vectors)), np.argsort(-(2 * s - own - nearest), axis=1))


def test_inverted_softmax_has_the_order_of_the_formula(vectors):
    s, b = scores_of(vectors)
    expected = np.exp(20 * s) / np.exp(20 * b).sum(axis=0)
    assert np.array_equal(order(hubness.inverted_softmax(*vectors)), np.argsort(-expected, axis=1))


def test_dual_softmax_has_the_order_of_the_formula(vectors):
    s, b = scores_of(vectors)
    e = np.exp(20 * s)
    expected = e / e.sum(axis=1, keepdims=True) * e / np.exp(20 * b).sum(axis=0)
    assert np.array_equal(order(hubness.dual_softmax(*vectors)), np.argsort(-expected, axis=1))


def test_qb_norm_corrects_just_the_queries_that_fall_to_hubs(vectors):
    s, b = scores_of(vectors)
    hubs = set(b.argmax(axis=1).tolist())
    corrected = np.exp(20 * s) / np.exp(20 * b).sum(axis=0)
    falls = np.array([row.argmax() in hubs for row in s])
    assert 0 < falls.sum() < len(falls)
    expected = np.where(falls[:, None], np.argsort(-corrected, axis=1), np.argsort(-s, axis=1))
    assert np.array_equal(order(hubness.qb_norm(*vectors)), expected)


def planted(seed):
    """Give pictures of which ten are near to every caption, captions, and a bank of other captions."""
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((200, 24))
    middle = np.full(24, 0.8)
    texts, bank = (images + rng.standard_normal((200, 24)) + middle for _ in range(2))
    images[:10] = 1.5 * middle + 0.3 * rng.standard_normal((10, 24))
    return [normalised(rows) for rows in (images, texts, bank)]


@pytest.mark.parametrize("correct", [hubness.nnn, hubness.qb_norm, hubness.inverted_softmax, hubness.csls])
def test_planted_hubs_are_corrected_with_a_bank_of_other_queries(correct):
    images, texts, bank = planted(2)
    before = evaluate_retrieval(images, texts, np.arange(200)).text_to_image.recall[1]
    asking, offered = correct(texts, images, bank)
    after = evaluate_retrieval(offered, asking, np.arange(200)).text_to_image.recall[1]
    assert after > before + 0.05


def test_a_bank_smaller_than_the_neighbours_is_taken_whole(vectors):
    queries, gallery, bank = vectors
    whole = hubness.nnn(queries, gallery, bank[:5], neighbours=128)
    assert np.array_equal(whole[1], hubness.nnn(queries, gallery, bank[:5], neighbours=5)[1])
