"""The twin encoder put together from parts, with towers so simple that sums tell their answers."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer as TokenizerFile
from tokenizers import models, normalizers, pre_tokenizers, processors

from crossmodal.encoders import preprocessing
from crossmodal.encoders.blueprint import fingerprint
from crossmodal.encoders.preprocessing import Preprocessing
from crossmodal.encoders.runtime import InputSpec, Runner, Tower, memory
from crossmodal.encoders.tokenizer import Tokenizer
from crossmodal.encoders.twin import TwinEncoder
from crossmodal.errors import EncoderError, ImageError

DIM, SIZE, LIMIT = 4, 8, 6
VOCABULARY = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "[PAD]": 3, "red": 4, "apple": 5, "a": 6}


class Recorder(Runner):
    """Embeds by plain sums, and keeps what it was given."""

    backend = "numpy"

    def __init__(self, tower):
        super().__init__(tower)
        self.calls = []

    def __call__(self, batches):
        self.calls.append(batches)
        return [self.embed(inputs[0]) for inputs in batches]

    @staticmethod
    def embed(array):
        flat = array.reshape(len(array), -1).astype(np.float32)
        rows = np.stack([flat.sum(1), flat[:, 0], flat[:, -1], np.ones(len(flat), np.float32)], axis=1)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def tower(modality):
    ids = InputSpec("int64", (None, None))
    inputs = (InputSpec("uint8", (None, SIZE, SIZE, 3)),) if modality == "image" else (ids,)
    return Tower(encoder="sums", modality=modality, fingerprint="f", dim=DIM, inputs=inputs, build=None)


@pytest.fixture
def tokenizer_file(tmp_path):
    """A word tokenizer whose file asks for padding to 20 and truncation to 3, as published files do."""
    file = TokenizerFile(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    file.normalizer = normalizers.Lowercase()
    file.pre_tokenizer = pre_tokenizers.Whitespace()
    file.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 1), ("[SEP]", 2)])
    file.enable_padding(length=20, pad_id=3, pad_token="[PAD]")
    file.enable_truncation(3)
    file.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


@pytest.fixture
def encoder(tokenizer_file):
    return TwinEncoder(
        name="sums",
        fingerprint="f",
        preprocessing=Preprocessing(size=SIZE, fit="squash", resample="bilinear"),
        tokenizer=Tokenizer(lambda: tokenizer_file, LIMIT),
        image_tower=Recorder(tower("image")),
        text_tower=Recorder(tower("text")),
        batch_size=5,
    )


def test_the_card_tells_of_the_parts(encoder):
    assert encoder.card.to_dict() == {
        "name": "sums",
        "dim": DIM,
        "fingerprint": "f",
        "backend": "numpy",
        "dtype": "float32",
        "image_size": SIZE,
        "text_limit": LIMIT,
    }


def test_tokens_are_cut_to_the_limit_and_never_padded_whatever_the_file_says(tokenizer_file):
    tokenize = Tokenizer(lambda: tokenizer_file, LIMIT)
    assert tokenize(["red apple", "", "a a a a a a a a a"]) == [[1, 4, 5, 2], [1, 2], [1, 6, 6, 6, 6, 2]]
    assert tokenize([]) == []


def test_lengths_tell_what_would_be_cut(tokenizer_file):
    tokenize = Tokenizer(lambda: tokenizer_file, LIMIT)
    texts = ["red apple", "", "a a a a", "a a a a a", "a " * 40]
    assert tokenize.lengths(texts) == [4, 2, 6, 7, 42]
    assert [len(ids) for ids in tokenize(texts)] == [4, 2, 6, 6, 6]


def test_texts_that_are_cut_are_counted(encoder):
    texts = ["a a a a", "a a a a a", "red apple", "", "é", "ﷺ" * 9, "a " * 40, "\ud800"]
    assert encoder.texts_cut(texts) == sum(n > LIMIT for n in encoder._tokenizer.lengths(texts)) == 2
    assert encoder.texts_cut([]) == 0


def test_the_size_of_a_batch_is_given_or_follows_the_memory_that_is_free(tokenizer_file, monkeypatch):
    def made(batch_size):
        return TwinEncoder(
            name="sums",
            fingerprint="f",
            preprocessing=Preprocessing(size=SIZE, fit="squash", resample="bilinear"),
            tokenizer=Tokenizer(lambda: tokenizer_file, LIMIT),
            image_tower=Recorder(tower("image")),
            text_tower=Recorder(tower("text")),
            batch_size=batch_size,
        )

    monkeypatch.setattr(
        memory, "available_memory", lambda: memory.SHARE * memory.COPIES * 3 * SIZE * SIZE * 7
    )
    assert (made(None).batch_size, made(50).batch_size) == (7, 50)
    monkeypatch.setattr(memory, "available_memory", lambda: 2**40)
    assert made(None).batch_size == Recorder.most_rows


def test_the_tokenizer_file_is_read_at_the_first_text_only(tokenizer_file):
    reads = []
    tokenize = Tokenizer(lambda: reads.append(1) or tokenizer_file, LIMIT)
    assert reads == []
    tokenize(["a"])
    tokenize(["b"])
    assert reads == [1]


@pytest.mark.parametrize(
    ("text", "same_as"),
    [
        ("\ud800", "\ufffd"),
        ("red \udc80 apple", "red \ufffd apple"),
        ("\ud83c\udf4e", "\U0001f34e"),
        ("\udf4e\ud83c", "\ufffd\ufffd"),
    ],
)
def test_text_that_utf8_cannot_hold_is_mended(tokenizer_file, text, same_as):
    tokenize = Tokenizer(lambda: tokenizer_file, LIMIT)
    assert tokenize([text]) == tokenize([same_as])


@pytest.mark.parametrize("text", ["", " ", "🍎🍏", "word " * 10_000, "تفاحة حمراء", "\0", "\ud800"])
def test_odd_texts_have_embeddings_too(encoder, text):
    embedding = encoder.encode_texts([text])
    assert embedding.shape == (1, DIM)
    assert np.isfinite(embedding).all()


@pytest.mark.parametrize(("wrong", "kind"), [(None, "NoneType"), (7, "int"), (b"red", "bytes")])
def test_what_is_no_text_is_refused_with_its_type(encoder, wrong, kind):
    for encode in (encoder.encode_texts, encoder.embed_texts):
        with pytest.raises(EncoderError, match=f"must be a str, but {kind} was given"):
            encode(["red", wrong])


def test_a_lone_string_is_not_taken_for_a_list_of_letters(encoder):
    with pytest.raises(EncoderError, match="got one str: 'red'; put it in a list"):
        encoder.encode_texts("red")


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((9, 7, 3), np.uint8),
        np.zeros((9, 7), np.uint8),
        Image.new("RGB", (9, 7)),
        "red.png",
        Path("red.png"),
        b"bytes of a file",
    ],
    ids=lambda picture: type(picture).__name__,
)
def test_a_lone_picture_is_not_taken_for_a_list_of_its_parts(encoder, picture):
    with pytest.raises(EncoderError, match=f"got one {type(picture).__name__}; put it in a list"):
        encoder.encode_images(picture)


def test_an_array_of_pictures_is_a_list_of_pictures(encoder):
    pictures = np.random.default_rng(0).integers(0, 256, (7, SIZE, SIZE, 3), np.uint8)
    np.testing.assert_array_equal(encoder.encode_images(pictures), encoder.encode_images(list(pictures)))
    np.testing.assert_allclose(encoder.encode_images(pictures), Recorder.embed(pictures), atol=1e-6)


def test_nothing_in_gives_an_empty_matrix(encoder):
    for empty in (encoder.encode_texts([]), encoder.encode_texts(iter(())), encoder.encode_images([])):
        assert empty.shape == (0, DIM)
        assert empty.dtype == np.float32


def test_texts_come_back_in_their_order_each_batch_of_one_length(encoder):
    texts = ["a", "red apple", "", "apple", "a red apple", "apple red", "red"] * 400
    embeddings = encoder.encode_texts(texts)
    expected = np.concatenate([encoder.encode_texts([text]) for text in texts[:7]])
    assert np.array_equal(embeddings, np.tile(expected, (400, 1)))
    for batches in encoder._text_tower.calls:
        lengths = [ids.shape[1] for (ids,) in batches]
        assert len(set(lengths)) == len(lengths)


def test_pictures_are_fitted_and_embedded_in_their_order(encoder):
    colours = [(200, 10, 10), (10, 200, 10), (0, 0, 0)] * 4
    embeddings = encoder.encode_images([Image.new("RGB", (20, 12), colour) for colour in colours])
    plain = np.array([np.full((SIZE, SIZE, 3), colour, np.uint8) for colour in colours])
    np.testing.assert_allclose(embeddings, Recorder.embed(plain), atol=1e-6)
    assert [len(batch[0][0]) for batch in encoder._image_tower.calls] == [5, 5, 2]


def test_a_large_jpeg_is_decoded_no_larger_than_needed_and_no_smaller(tmp_path, monkeypatch):
    seen = []
    load = preprocessing.load_image
    monkeypatch.setattr(
        preprocessing, "load_image", lambda image, **options: seen.append(load(image, **options)) or seen[-1]
    )
    Image.new("RGB", (640, 480)).save(tmp_path / "large.jpg")
    for exact in (False, True):
        fit = Preprocessing(size=100, fit="crop", resample="bicubic", crop_fraction=0.875, exact=exact)
        fit(tmp_path / "large.jpg")
    assert [picture.size for picture in seen] == [(160, 120), (640, 480)]


def test_a_broken_picture_is_named(encoder, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        encoder.encode_images([tmp_path / "broken.jpg"])


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((1, SIZE, SIZE, 3), np.float32),
        np.zeros((1, 9, 8, 3), np.uint8),
        np.zeros((8, 8, 3), np.uint8),
    ],
)
def test_pixels_of_another_kind_or_size_are_refused(encoder, pixels):
    with pytest.raises(EncoderError, match=r"embeds uint8 \(B, 8, 8, 3\), got "):
        encoder.embed_pixels(pixels)


def test_a_fingerprint_changes_with_every_fact_and_with_nothing_else():
    facts = {"architecture": "x", "weights": {"b": "2", "a": "1"}, "limit": 7}
    seen = {fingerprint(**facts)}
    assert fingerprint(**json.loads(json.dumps(facts))) in seen
    for change in ({"architecture": "y"}, {"weights": {"b": "2", "a": "2"}}, {"limit": 8}, {"more": ""}):
        seen.add(fingerprint(**(facts | change)))
    assert len(seen) == 5


def test_preprocessing_tells_all_its_settings_to_the_fingerprint():
    assert Preprocessing(size=8, fit="pad", resample="bicubic").to_dict() == {
        "size": 8,
        "fit": "pad",
        "resample": "bicubic",
        "crop_fraction": 1.0,
        "fill": (255, 255, 255),
        "exact": False,
    }
