"""Features of frozen towers equal what the model itself gives, are made once, and survive a bad disk."""

import logging

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from crossmodal.encoders import read_blueprint
from crossmodal.errors import TrainingError
from training.data import feature_cache, features
from training.data.augment import AugmentSettings
from training.data.feature_cache import FeatureCache, key_of
from training.data.features import FeatureSettings, features_of
from training.data.frozen import frozen_side

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "dog", "cat", "and"]
CAPTIONS = [["a dog"], ["a red cat and a dog", "cat"], ["a dog"], ["red"], ["a and a and a"]]
EXACT = FeatureSettings(dtype="float32")
VARIED = AugmentSettings(crop=0.4, policy="randaugment")


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet").state_dict(), folder / "test_resnet.safetensors")
    sizes = {"vocab_size": 16, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(**sizes, intermediate_size=48, initializer_range=0.2)).save_pretrained(
        folder / "bert"
    )
    file = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    file.pre_tokenizer = pre_tokenizers.Whitespace()
    file.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    saved = PreTrainedTokenizerFast(tokenizer_object=file, pad_token="[PAD]", model_max_length=24)
    saved.save_pretrained(folder / "bert")
    return folder


@pytest.fixture
def twin(parts):
    """Give a model and its blueprint: ``twin("image_pool=generalised")``."""

    def make(options=""):
        spec = f"towers:test_resnet/{parts}/test_resnet.safetensors+{parts / 'bert'}?dim=8&{options}"
        blueprint = read_blueprint(spec)
        return blueprint.load(), blueprint

    return make


@pytest.fixture
def examples(make_examples):
    return make_examples(CAPTIONS)


def shards(folder):
    return sorted(folder.rglob("*.safetensors"))


def counted_views(monkeypatch):
    """Give a list that the places of all views decoded from now on are put into."""
    seen = []
    view = features._Sights._view

    def counted(self, place):
        seen.append(place)
        return view(self, place)

    monkeypatch.setattr(features._Sights, "_view", counted)
    return seen


@torch.inference_mode()
def by_the_model(model, blueprint, examples):
    owner = model.owner.eval()
    pixels = np.stack([blueprint.preprocessing(examples.picture(row)) for row in range(len(examples))])
    ids = [torch.tensor([own]) for own in blueprint.tokenizer(examples.texts)]
    return owner.image_features(torch.from_numpy(pixels)), torch.cat([owner.text_features(i) for i in ids])


@pytest.mark.parametrize("options", ["", "image_pool=generalised", "text_pool=cls"])
def test_features_are_those_of_the_model(twin, examples, tmp_path, options):
    model, blueprint = twin(options)
    model.owner.train()
    made = features_of(examples, model, blueprint, settings=EXACT, folder=tmp_path / "kept")
    assert model.owner.training, "what trains goes on training"
    assert all(module.training for module in model.owner.modules())
    images, texts = by_the_model(model, blueprint, examples)
    torch.testing.assert_close(made.images[:, 0], images, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(made.texts, texts, rtol=1e-3, atol=1e-4)
    assert made.unreadable == ()
    halves = features_of(examples, model, blueprint, folder=tmp_path / "halves")
    assert halves.images.dtype == halves.texts.dtype == torch.float16
    torch.testing.assert_close(halves.images.float(), made.images, rtol=1e-2, atol=1e-2)


def test_features_of_lite_are_those_of_the_model_whatever_its_heads(examples, tmp_path, monkeypatch):
    blueprint = read_blueprint("lite")
    model = blueprint.load()
    made = features_of(examples, model, blueprint, settings=EXACT, folder=tmp_path / "kept")
    images, texts = by_the_model(model, blueprint, examples)
    torch.testing.assert_close(made.images[:, 0], images, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(made.texts, texts, rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        model.owner.image.head.origin.add_(1)
    monkeypatch.setattr(features._Sights, "_view", lambda *_: pytest.fail("a picture was decoded again"))
    again = features_of(examples, model, blueprint, settings=EXACT, folder=tmp_path / "kept")
    assert torch.equal(made.images, again.images)


def test_what_is_kept_is_not_made_again_also_under_other_heads(twin, examples, tmp_path, monkeypatch):
    first = features_of(examples, *twin("seed=1"), settings=EXACT, folder=tmp_path / "kept")
    monkeypatch.setattr(features._Sights, "_view", lambda *_: pytest.fail("a picture was decoded again"))
    again = features_of(examples, *twin("seed=2"), settings=EXACT, folder=tmp_path / "kept")
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.texts, again.texts)


def test_other_weights_have_features_of_their_own(twin, examples, tmp_path):
    model, blueprint = twin()
    before = features_of(examples, model, blueprint, settings=EXACT, folder=tmp_path / "kept")
    with torch.no_grad():
        for parameter in model.owner.image.tower.parameters():
            parameter.mul_(0.9)
    after = features_of(examples, model, blueprint, settings=EXACT, folder=tmp_path / "kept")
    assert not torch.allclose(before.images, after.images)
    assert torch.equal(before.texts, after.texts)
    torch.testing.assert_close(
        after.images[:, 0], by_the_model(model, blueprint, examples)[0], rtol=1e-3, atol=1e-4
    )


def test_only_what_is_new_is_made_when_pictures_and_views_are_added(twin, examples, tmp_path, monkeypatch):
    model, blueprint = twin()
    seen = counted_views(monkeypatch)
    some = examples.take([0, 3])
    folder = tmp_path / "kept"
    features_of(some, model, blueprint, folder=folder)
    assert len(seen) == 2
    features_of(examples, model, blueprint, folder=folder)
    assert len(seen) == 5
    three = FeatureSettings(views=3)
    first = features_of(examples, model, blueprint, settings=three, augment=VARIED, folder=folder)
    assert len(seen) == 5 + 10
    more = features_of(
        examples, model, blueprint, settings=FeatureSettings(views=4), augment=VARIED, folder=folder
    )
    assert len(seen) == 5 + 10 + 5
    assert torch.equal(more.images[:, :3], first.images)
    features_of(examples, model, blueprint, settings=three, augment=AugmentSettings(crop=0.5), folder=folder)
    assert len(seen) == 5 + 10 + 5 + 10, "another augmentation makes other views, but the plain one stays"


def test_views_differ_and_the_first_is_the_picture_itself(twin, examples, tmp_path):
    model, blueprint = twin()
    made = features_of(
        examples,
        model,
        blueprint,
        settings=FeatureSettings(views=4, dtype="float32"),
        augment=VARIED,
        folder=tmp_path / "kept",
    )
    plain, _ = by_the_model(model, blueprint, examples)
    torch.testing.assert_close(made.images[:, 0], plain, rtol=1e-3, atol=1e-4)
    distinct = {tuple(view.tolist()) for view in made.images.flatten(0, 1)}
    assert len(distinct) > 12
    with pytest.raises(TrainingError, match=r"4 views .* no augmentation"):
        features_of(examples, model, blueprint, settings=FeatureSettings(views=4), folder=tmp_path / "kept")


def test_captions_that_change_by_chance_are_refused_where_texts_are_read_once(twin, examples, tmp_path):
    for augment in (AugmentSettings(word_dropout=0.1), AugmentSettings(templates=("a photo of {}",))):
        with pytest.raises(TrainingError, match="frozen text tower"):
            features_of(examples, *twin(), augment=augment, folder=tmp_path / "kept")


def test_pictures_that_cannot_be_decoded_are_left_out_and_listed(twin, examples, tmp_path):
    model, blueprint = twin()
    whole = features_of(examples, model, blueprint, settings=EXACT, folder=tmp_path / "whole")
    content = examples.pictures[1].read_bytes()
    examples.pictures[1].write_bytes(content[: len(content) // 2])
    examples.pictures[4].unlink()
    for _ in range(2):
        made = features_of(examples, model, blueprint, settings=EXACT, folder=tmp_path / "kept")
        assert [key for key, _ in made.unreadable] == [examples.keys[1], examples.keys[4]]
        assert list(made.examples.keys) == [examples.keys[row] for row in (0, 2, 3)]
        torch.testing.assert_close(made.images, whole.images[[0, 2, 3]])
        assert len(made.texts) == len(examples.texts)


def test_an_interrupted_run_goes_on_with_the_shards_it_wrote(twin, examples, tmp_path, monkeypatch):
    model, blueprint = twin()
    monkeypatch.setattr(feature_cache, "SHARD_ROWS", 2)
    view = features._Sights._view

    def interrupted(self, place):
        if place == 2:
            raise KeyboardInterrupt
        return view(self, place)

    with monkeypatch.context() as patch:
        patch.setattr(features._Sights, "_view", interrupted)
        with pytest.raises(KeyboardInterrupt):
            features_of(examples, model, blueprint, folder=tmp_path / "kept")
    assert len(shards(tmp_path / "kept")) == 1
    seen = counted_views(monkeypatch)
    features_of(examples, model, blueprint, folder=tmp_path / "kept")
    assert sorted(seen) == [2, 3, 4]


@pytest.mark.parametrize("harm", ["cut", "changed", "emptied"])
def test_a_torn_shard_is_seen_and_made_again(tmp_path, caplog, harm):
    keys = [key_of(number) for number in range(6)]
    rows = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    made = []

    def make(places):
        made.extend(places)
        return rows[list(places)], np.ones(len(places), np.bool_)

    def read():
        return FeatureCache(tmp_path / "kept", (3,), torch.float32).rows(keys, make)

    assert torch.equal(read(), torch.from_numpy(rows))
    assert torch.equal(read(), torch.from_numpy(rows))
    assert made == list(range(6))
    [shard] = shards(tmp_path)
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes({"cut": content[: len(content) // 2], "changed": content, "emptied": b""}[harm])
    with caplog.at_level(logging.WARNING):
        assert torch.equal(read(), torch.from_numpy(rows))
    assert "is torn" in caplog.text
    assert made == list(range(6)) * 2
    assert torch.equal(read(), torch.from_numpy(rows))
    assert len(made) == 12


def test_equal_keys_are_made_once_and_failures_are_not_kept(tmp_path):
    keys = [key_of(0), key_of(1), key_of(0)]
    fails = {1}

    def make(places):
        good = np.array([place not in fails for place in places])
        return np.full((len(places), 2), 7.0, np.float32), good

    cache = FeatureCache(tmp_path / "kept", (2,), torch.float16)
    assert cache.rows(keys, make).tolist() == [[7, 7], [0, 0], [7, 7]]
    fails.clear()
    assert cache.rows(keys, make).tolist() == [[7, 7]] * 3


def test_a_cache_that_cannot_be_written_is_told_and_done_without(tmp_path, caplog):
    (tmp_path / "kept").write_text("a file where the folder would be")
    make = lambda places: (np.ones((len(places), 2), np.float32), np.ones(len(places), np.bool_))  # noqa: E731
    cache = FeatureCache(tmp_path / "kept", (2,), torch.float32)
    assert cache.rows([key_of(0)], make).tolist() == [[1, 1]]
    assert "cannot be kept" in caplog.text


def test_a_learnt_pooling_of_texts_cannot_be_kept_and_says_what_to_do(twin):
    model, blueprint = twin("text_pool=generalised")
    with pytest.raises(TrainingError, match=r"learns its pooling.*text_pool=mean"):
        frozen_side(model, blueprint, "text")
