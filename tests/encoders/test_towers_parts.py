"""The bricks of `towers`: poolings against plain loops, preprocessing against timm, and what is refused."""

import json
import math
import re
import shutil

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform
from tokenizers import Tokenizer, models, processors

from crossmodal.encoders import read_blueprint
from crossmodal.encoders.preprocessing import Preprocessing
from crossmodal.encoders.towers.pooling import GeneralisedPooling, reduce
from crossmodal.encoders.towers.preprocessing import (
    TimmPreprocessing,
    preprocessing_of,
    restore_preprocessing,
)
from crossmodal.encoders.towers.spec import parse_spec
from crossmodal.errors import EncoderError, ImageError

MEAN, STD = (0.48, 0.46, 0.41), (0.23, 0.22, 0.25)


def gru_by_loop(states, gru, suffix):
    """One direction of a GRU, step by step, in NumPy (Cho et al. 2014, as torch documents it)."""
    parts = {name: tensor.detach().double().numpy() for name, tensor in gru.named_parameters()}
    weights = [parts[f"{name}_l0{suffix}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    hidden, out = np.zeros(gru.hidden_size), []
    for state in states:
        given = np.split(weights[0] @ state + weights[2], 3)
        kept = np.split(weights[1] @ hidden + weights[3], 3)
        reset, update = (1 / (1 + np.exp(-(given[i] + kept[i]))) for i in (0, 1))
        hidden = (1 - update) * np.tanh(given[2] + reset * kept[2]) + update * hidden
        out.append(hidden)
    return np.array(out)


def generalised_by_loop(features, pooling):
    """GPO of one set (N, C), in NumPy."""
    positions = np.zeros((len(features), 32))
    for row in range(len(features)):
        for pair in range(16):
            angle = row / 10000 ** (2 * pair / 32)
            positions[row, 2 * pair : 2 * pair + 2] = math.sin(angle), math.cos(angle)
    forward = gru_by_loop(positions, pooling.gru, "")
    backward = gru_by_loop(positions[::-1], pooling.gru, "_reverse")[::-1]
    scores = (forward + backward) / 2 @ pooling.score.weight.detach().double().numpy()[0] / 0.1
    weights = np.exp(scores - scores.max())
    weights /= weights.sum()
    pooled = np.zeros(features.shape[1])
    for channel in range(features.shape[1]):
        for weight, value in zip(weights, sorted(features[:, channel], reverse=True), strict=True):
            pooled[channel] += weight * value
    return pooled


@pytest.fixture(scope="module")
def pooling():
    torch.manual_seed(0)
    pooling = GeneralisedPooling().eval()
    torch.nn.init.normal_(pooling.score.weight)  # far from equal weights
    return pooling


@torch.inference_mode()
def test_generalised_pooling_is_a_weighted_sum_of_sorted_features(pooling):
    features = torch.randn(3, 11, 5, generator=torch.manual_seed(0))
    expected = [generalised_by_loop(row.double().numpy(), pooling) for row in features]
    np.testing.assert_allclose(pooling(features).numpy(), expected, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_generalised_pooling_sees_nothing_of_the_padding(pooling):
    features = torch.randn(4, 9, 5, generator=torch.manual_seed(1))
    lengths = [9, 1, 4, 4]
    mask = (torch.arange(9) < torch.tensor(lengths).unsqueeze(1)).long()
    features[mask == 0] = 1e6
    expected = [
        generalised_by_loop(row[:length].double().numpy(), pooling)
        for row, length in zip(features, lengths, strict=True)
    ]
    np.testing.assert_allclose(pooling(features, mask).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_generalised_pooling_has_the_right_gradient_with_a_mask():
    torch.manual_seed(0)
    pooling = GeneralisedPooling().double()
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    features = torch.randn(2, 3, 2, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda given: pooling(given, mask), (features,))
    assert torch.autograd.gradcheck(pooling, (features,))


def test_plain_pools_are_the_first_token_and_the_mean_without_padding():
    features = torch.randn(2, 4, 3, generator=torch.manual_seed(0))
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    expected = [np.mean([token.numpy() for token in features[0]], 0), features[1, :2].numpy().sum(0) / 2]
    np.testing.assert_allclose(reduce("mean", features, mask).numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(reduce("mean", features[:1]).numpy(), expected[:1], rtol=1e-5)
    assert torch.equal(reduce("cls", features, mask), features[:, 0])
    assert reduce("generalised", features, mask) is features


@pytest.mark.parametrize(
    ("size", "mode", "crop"),
    [
        ((64, 64), "center", 0.9),  # 71.1: rounded down
        ((60, 60), "center", 0.88),  # 68.2
        ((63, 63), "center", 0.95),  # 66.3
        ((64, 64), "center", 1.0),
        ((64, 64), "squash", 1.0),
        ((64, 64), "squash", 0.9),
        ((64, 64), "border", 1.0),
        ((64, 64), "border", 0.9),
        ((48, 80), "center", 0.9),
        ((80, 48), "border", 1.0),
        ((48, 80), "squash", 1.0),
    ],
)
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pixels_are_those_of_timms_transform(size, mode, crop, interpolation):
    data = {
        **{"input_size": (3, *size), "crop_mode": mode, "crop_pct": crop, "interpolation": interpolation},
        **{"mean": MEAN, "std": STD},
    }
    preprocess, transform = preprocessing_of(data), create_transform(**data, is_training=False)
    assert preprocess.shape == size
    random = np.random.default_rng(0)
    for shape in [(200, 150), (71, 333), (64, 64), (40, 30), (31, 97), (1, 1), (9, 62)]:
        picture = Image.fromarray(random.integers(0, 256, (*shape, 3), np.uint8))
        ours = (preprocess(picture) / np.float32(255) - np.float32(MEAN)) / np.float32(STD)
        np.testing.assert_allclose(ours.transpose(2, 0, 1), transform(picture).numpy(), atol=1e-6)
    assert restore_preprocessing(json.loads(json.dumps(preprocess.to_dict()))) == preprocess


def test_squares_are_made_exactly_by_the_common_preprocessing():
    data = {"input_size": (3, 64, 64), "crop_mode": "center", "crop_pct": 0.9, "interpolation": "bicubic"}
    made = preprocessing_of({**data, "mean": MEAN, "std": STD})
    assert isinstance(made, Preprocessing)
    assert made.exact


def test_a_long_strip_is_not_blown_up_to_be_cropped(monkeypatch):
    sizes = []
    resize = Image.Image.resize
    monkeypatch.setattr(
        Image.Image, "resize", lambda image, size, *rest: sizes.append(size) or resize(image, size, *rest)
    )
    made = TimmPreprocessing(size=(48, 80), mode="center", resample="bicubic", crop_fraction=1.0)
    assert made(np.zeros((3, 4000, 3), np.uint8)).shape == (48, 80, 3)
    assert max(max(size) for size in sizes) <= 8 * 80


def test_a_broken_picture_is_told(tmp_path):
    made = TimmPreprocessing(size=(48, 80), mode="center", resample="bicubic", crop_fraction=1.0)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ImageError, match=r"broken\.png"):
        made(tmp_path / "broken.png")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"input_size": (1, 64, 64)}, "takes 1 channels; expected 3"),
        ({"interpolation": "lanczos"}, "Unknown interpolation of the image model 'lanczos'"),
        ({"crop_mode": "centre"}, "Unknown crop mode of the image model 'centre'. Did you mean 'center'"),
    ],
)
def test_a_data_config_that_cannot_be_met_is_refused(change, told):
    data = {"input_size": (3, 64, 64), "crop_mode": "center", "crop_pct": 0.9, "interpolation": "bicubic"}
    with pytest.raises(EncoderError, match=re.escape(told)):
        preprocessing_of({**data, "mean": MEAN, "std": STD, **change})


def test_a_spec_is_written_again_in_full_and_plus_signs_may_stand_in_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a+b").mkdir()
    (tmp_path / "a+b" / "w.safetensors").touch()
    (tmp_path / "t+u").mkdir()
    spec = parse_spec("test_vit/a+b/w.safetensors+t+u?dim=8&seed=0&text_pool=cls")
    assert (spec.image, spec.text) == ("test_vit/a+b/w.safetensors", "t+u")
    written = str(spec)
    assert written == f"towers:test_vit/{tmp_path}/a+b/w.safetensors+{tmp_path}/t+u?dim=8&text_pool=cls"
    monkeypatch.chdir("/")
    assert str(parse_spec(written.removeprefix("towers:"))) == written


@pytest.fixture
def text(tmp_path):
    """A folder that looks like a BERT's, with a tokenizer of one word."""
    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 24}))
    save_file({"x": torch.zeros(1)}, folder / "model.safetensors")
    write_tokenizer(folder, processors.TemplateProcessing("$A [SEP]", None, [("[SEP]", 0)]))
    return folder


def write_tokenizer(folder, marks=None):
    file = Tokenizer(models.WordLevel({"[SEP]": 0}, unk_token="[SEP]"))
    if marks is not None:
        file.post_processor = marks
    file.save(str(folder / "tokenizer.json"))


def want_lower_case(folder):
    module = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
    (folder / "modules.json").write_text(json.dumps([module]))
    (folder / "sentence_bert_config.json").write_text('{"do_lower_case": true}')


IMAGE = "efficientnet_lite0"


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("", "does not name an image model and a text model; write towers:IMAGE"),
        (f"{IMAGE}", "does not name an image model and a text model"),
        (f"+{IMAGE}", "does not name an image model and a text model"),
        (f"{IMAGE}+minilm?dims=8", "Unknown option of towers 'dims'. Did you mean 'dim'? Known: dim, head"),
        (f"{IMAGE}+minilm?dim=0", "Option dim='0' of towers must be a whole number from 1"),
        (f"{IMAGE}+minilm?dim=٣", "Option dim='٣' of towers must be a whole number from 1"),
        (f"{IMAGE}+minilm?head=deep", "Unknown head 'deep'. Known: linear, mlp"),
        (
            f"{IMAGE}+minilm?text_pool=max",
            "Unknown text_pool 'max'. Did you mean 'mean'? Known: cls, generalised, mean",
        ),
        ("test_vitt+minilm", "Unknown image model of timm 'test_vitt'. Did you mean 'test_vit'? Near it: "),
        ("test_vit.r160+minilm", "'test_vit.r160'. Did you mean 'test_vit.r160_in1k'?"),
        ("test_vit/none.safetensors+minilm", "No such file of weights: none.safetensors"),
        ("local-dir:none+minilm", "none is no folder of a timm model: config.json must name"),
        (
            f"{IMAGE}+/none/bert",
            "No such folder of a text model: /none/bert; towers:efficientnet_lite0+minilm",
        ),
        (
            f"{IMAGE}+no/such",
            "'no/such' has to come from the Hugging Face hub over the network, which failed",
        ),
        ("test_vit+minilm", "'timm/test_vit.r160_in1k' has to come from the Hugging Face hub"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(spec, told, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(EncoderError, match=re.escape(told)) as raised:
        read_blueprint(f"towers:{spec}")
    assert "\n" not in str(raised.value)


def test_what_needs_the_network_names_what_does_not(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(EncoderError, match=r"towers:efficientnet_lite0\+minilm needs no network"):
        read_blueprint("towers:hf-hub:timm/test_vit.r160_in1k+minilm")


def rewrite(folder, **config):
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda f: (f / "config.json").unlink(), "its config.json cannot be read"),
        (lambda f: (f / "config.json").write_text('{"mod'), "its config.json cannot be read"),
        (lambda f: rewrite(f), "its config.json names no model_type"),
        (lambda f: rewrite(f, model_type="berd"), "Unknown model_type 'berd'. Did you mean 'bert'?"),
        (lambda f: rewrite(f, model_type="clip", vision_config={}), "use hf:FOLDER, or name a text model"),
        (lambda f: rewrite(f, model_type="bart", is_encoder_decoder=True), "is an encoder with a decoder"),
        (lambda f: (f / "model.safetensors").unlink(), "holds no weights; expected model.safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\0" * 20), "its header is torn"),
        (lambda f: (f / "tokenizer.json").unlink(), "holds no tokenizer.json; write one with"),
        (lambda f: (f / "tokenizer.json").write_text("{"), "tokenizer.json is torn or no tokenizer"),
        (lambda f: write_tokenizer(f), "gives an empty text no token at all"),
        (want_lower_case, "wants them in lower case (do_lower_case); add a Lowercase normalizer"),
        (lambda f: (f / "modules.json").write_text("[{"), "modules.json cannot be read"),
        (lambda f: (f / "modules.json").write_text("[{}]"), "does not list modules"),
    ],
)
def test_a_folder_of_a_text_model_that_lacks_something_is_told(text, spoil, told):
    spoil(text)
    with pytest.raises(EncoderError, match=re.escape(told)) as raised:
        read_blueprint(f"towers:{IMAGE}+{text}")
    assert "\n" not in str(raised.value)


def test_weights_that_are_those_of_another_model_are_told(text, tmp_path):
    with pytest.raises(
        EncoderError, match=r"do not fit its config.json: \d+ tensors are missing \(embeddings"
    ):
        read_blueprint(f"towers:{IMAGE}+{text}").load()
    save_file(timm.create_model("test_vit2").state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(EncoderError, match=r"do not fit its configuration: 3 missing \(cls_token"):
        read_blueprint(f"towers:test_vit/{tmp_path}/w.safetensors+minilm").load()


def test_a_pickle_is_refused(text, tmp_path):
    torch.save({"net": torch.nn.Linear(2, 2)}, tmp_path / "w.pth")
    with pytest.raises(EncoderError, match="would run code when read, which is refused"):
        read_blueprint(f"towers:test_vit/{tmp_path}/w.pth+minilm").load()
    (text / "model.safetensors").unlink()
    shutil.copy(tmp_path / "w.pth", text / "pytorch_model.bin")
    with pytest.raises(
        EncoderError, match="cannot be read: its weights hold more than tensors and would run code"
    ) as raised:
        read_blueprint(f"towers:{IMAGE}+{text}").load()
    assert "\n" not in str(raised.value)


def test_pooling_by_a_class_token_needs_one():
    with pytest.raises(
        EncoderError, match="EfficientNet has no class token to pool by; use image_pool=native"
    ):
        read_blueprint(f"towers:{IMAGE}+minilm?image_pool=cls").load()
