"""A prefix of an encoder: the first dimensions, of length one, and nothing else about it changes."""

import numpy as np
import pytest

import crossmodal.encoders
from crossmodal import load_encoder
from crossmodal.encoders.prefix import PrefixEncoder
from crossmodal.errors import EncoderError


@pytest.fixture
def whole(toy_encoder, monkeypatch):
    monkeypatch.setitem(crossmodal.encoders._CATALOGUE, "toy", lambda *_: toy_encoder)
    return toy_encoder


def first(embeddings: np.ndarray, dim: int) -> np.ndarray:
    return np.stack([row[:dim] / np.sqrt(sum(float(x) ** 2 for x in row[:dim])) for row in embeddings])


@pytest.mark.parametrize("dim", [1, 12, 15])
def test_a_prefix_is_the_first_dimensions_made_of_length_one(whole, picture_folder, dim):
    pictures, texts = sorted(picture_folder.glob("red.png")), ["a red picture", "red"]
    prefix = load_encoder("toy", dim=dim)
    for seen, full in (
        (prefix.encode_images(pictures), whole.encode_images(pictures)),
        (prefix.encode_texts(texts), whole.encode_texts(texts)),
    ):
        assert seen.dtype == np.float32
        np.testing.assert_allclose(seen, first(full, dim), atol=1e-6)


def test_the_card_says_so_and_two_lengths_cannot_be_mixed_up(whole):
    prefix = load_encoder("toy", dim=12)
    assert (prefix.card.name, prefix.card.dim) == ("toy", 12)
    fingerprints = {load_encoder("toy", dim=dim).card.fingerprint for dim in (11, 12, 16)}
    assert len(fingerprints) == 3
    assert prefix.card.fingerprint == f"{whole.card.fingerprint}+12"


def test_all_dimensions_are_the_encoder_itself(whole):
    assert load_encoder("toy", dim=16) is whole
    assert load_encoder("toy") is whole


@pytest.mark.parametrize("dim", [0, -1, 17])
def test_dimensions_that_are_not_there_are_refused_in_one_line(whole, dim):
    with pytest.raises(EncoderError, match=f"{dim} dimensions of toy .* has 16; give 1 to 16") as caught:
        load_encoder("toy", dim=dim)
    assert "\n" not in str(caught.value)


def test_nought_in_all_that_is_kept_is_told(whole):
    """The toy's first eight dimensions are colours, and this text names none."""
    with pytest.raises(EncoderError, match="nought in its first 8 dimensions"):
        PrefixEncoder(whole, 8).encode_texts(["number seven"])
