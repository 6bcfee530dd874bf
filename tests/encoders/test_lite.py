"""The encoder `lite` as people load it, on both backends."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from crossmodal.encoders import load_encoder
from crossmodal.encoders.lite import settings, weights
from crossmodal.errors import EncoderError

TEXTS = [
    "a red apple",
    "",
    "🍎🍏",
    "تفاحة حمراء على طاولة",
    "flag with a star",
    "a photograph of an old wooden boat on a quiet lake in the early morning light",
    "\ud800",
    "word " * 10_000,
]


@pytest.fixture(scope="module")
def cache_root(tmp_path_factory):
    """One cache for all tests here: preparing the towers takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("CROSSMODAL_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def openvino(cache_root):
    return load_encoder("lite", backend="openvino")


@pytest.fixture(scope="module")
def torch():
    return load_encoder("lite", backend="torch")


@pytest.fixture(scope="module")
def pictures():
    """Noise, plain colour and gradients, in sizes and shapes of their own."""
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (int(h), int(w), 3), np.uint8) for h, w in rng.integers(20, 600, (6, 2))]
    plain = [Image.new("RGB", (300, 200), colour) for colour in ("red", "white", "black")]
    return [*noise, *plain, Image.linear_gradient("L"), Image.radial_gradient("L")]


def test_the_card_says_what_it_is(openvino, torch):
    card = openvino.card.to_dict()
    assert len(card.pop("fingerprint")) == 64
    assert card == {
        "name": "lite",
        "dim": 384,
        "backend": "openvino",
        "dtype": "float32",
        "image_size": settings.IMAGE_SIZE,
        "text_limit": 256,
    }
    assert torch.card.backend == "torch"
    assert torch.card.fingerprint == openvino.card.fingerprint


def test_both_backends_give_the_same_embeddings(openvino, torch, pictures):
    for ours, theirs in [
        (openvino.encode_images(pictures), torch.encode_images(pictures)),
        (openvino.encode_texts(TEXTS), torch.encode_texts(TEXTS)),
    ]:
        assert ours.dtype == theirs.dtype == np.float32
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)
        assert (ours * theirs).sum(1).min() > 0.99999


def test_openvino_gives_the_same_bits_alone_and_in_company(openvino, pictures):
    together = openvino.encode_images(pictures)
    for i, picture in enumerate(pictures):
        assert np.array_equal(openvino.encode_images([picture])[0], together[i])
    assert np.array_equal(openvino.encode_images(pictures[::-1])[::-1], together)
    texts = [f"{text[:60]} {extra}" for text in TEXTS for extra in ("", "red", "on the old table", "x y z")]
    together = openvino.encode_texts(texts)
    for i, text in enumerate(texts):
        assert np.array_equal(openvino.encode_texts([text])[0], together[i])
    assert np.array_equal(openvino.encode_texts(texts[::-1])[::-1], together)


def test_torch_gives_nearly_the_same_alone_and_in_company(torch, pictures):
    for encode, items in [(torch.encode_images, pictures[-4:]), (torch.encode_texts, TEXTS[:5])]:
        together = encode(items)
        alone = np.concatenate([encode([item]) for item in items])
        assert (together * alone).sum(1).min() > 0.999999


def test_tokens_are_those_of_the_models_own_tokenizer(openvino):
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(weights.text_folder())
    texts = [text for text in TEXTS if text != "\ud800"]
    expected = [theirs(text, truncation=True, max_length=settings.TEXT_LIMIT)["input_ids"] for text in texts]
    assert openvino._tokenizer(texts) == expected
    assert max(map(len, expected)) == settings.TEXT_LIMIT


def test_words_past_the_limit_do_not_count(openvino):
    long, longer = openvino.encode_texts(["word " * 254, "word " * 10_000])
    assert np.array_equal(long, longer)


def test_meaning_is_nearer_than_its_opposite(openvino):
    query, near, far = openvino.encode_texts(["a small dog", "a puppy", "the national budget"])
    assert query @ near > query @ far


def test_a_prepared_text_query_needs_no_torch(openvino, cache_root):
    openvino.encode_texts(["prepare the text tower"])
    code = (
        "import sys, crossmodal.encoders as e\n"
        "embedding = e.load_encoder('lite', backend='openvino').encode_texts(['a red apple'])\n"
        "assert embedding.shape == (1, 384)\n"
        "loaded = {'torch', 'transformers', 'timm', 'open_clip', 'torchvision'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))


def test_loading_reads_no_weights(monkeypatch):
    def refuse(path, sha256):
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr(weights, "verify", refuse)
    for backend in ("openvino", "torch"):
        load_encoder("lite", backend=backend)


def test_other_heads_make_another_fingerprint(openvino, tmp_path, monkeypatch):
    heads = tmp_path / "heads.safetensors"
    heads.write_bytes(weights.heads_file().read_bytes() + b" ")
    monkeypatch.setattr(weights, "heads_file", lambda: heads)
    assert load_encoder("lite", backend="openvino").card.fingerprint != openvino.card.fingerprint


@pytest.mark.parametrize(("constant", "value"), [("TRUST", 0.5), ("FAR", 0.5), ("NETS", {"lite0": 192})])
def test_another_constant_of_the_image_head_makes_another_fingerprint(openvino, constant, value, monkeypatch):
    """Else a tower that was prepared with the old one would go on being used."""
    monkeypatch.setattr(settings, constant, value)
    assert load_encoder("lite", backend="openvino").card.fingerprint != openvino.card.fingerprint


@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_heads_trained_anew_are_not_kept_under_the_old_fingerprint(backend, pictures, tmp_path, monkeypatch):
    """A tower is built when it is first needed, which may be after its heads' file was written over."""
    monkeypatch.setenv("CROSSMODAL_CACHE", str(tmp_path / "cache"))
    heads = tmp_path / "heads.safetensors"
    heads.write_bytes(weights.heads_file().read_bytes())
    monkeypatch.setattr(weights, "heads_file", lambda: heads)
    encoder = load_encoder("lite", backend=backend)
    heads.write_bytes(heads.read_bytes() + b" ")
    with pytest.raises(EncoderError, match="lite has changed since it was opened; open it again"):
        encoder.encode_images(pictures[:1])
    with pytest.raises(EncoderError, match="lite has changed since it was opened; open it again"):
        encoder.encode_texts(["a red apple"])


def test_the_batch_size_can_be_chosen():
    assert load_encoder("lite", backend="openvino", batch_size=7).batch_size == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spec": "light"}, r"Unknown encoder 'light'\. Did you mean 'lite'\? Known: hf:\.\.\., lite, "),
        ({"spec": "lite:2"}, "takes nothing after its name, got 'lite:2'"),
        ({"spec": ""}, "Unknown encoder ''"),
        ({"batch_size": 0}, "Batch size 0 is too small"),
        ({"backend": "tensorrt"}, "Unknown backend 'tensorrt'.* Known: auto, openvino, torch"),
    ],
)
def test_what_cannot_be_loaded_is_refused_in_one_line(options, message):
    with pytest.raises(EncoderError, match=message) as caught:
        load_encoder(**options)
    assert "\n" not in str(caught.value)
