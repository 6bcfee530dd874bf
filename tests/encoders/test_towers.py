"""Towers of tiny random models, against timm, transformers and sentence-transformers."""

import json
import logging

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data import create_transform, resolve_model_data_config
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerFast

from crossmodal.encoders import load_encoder, read_blueprint
from crossmodal.encoders.checkpoint import save_checkpoint
from crossmodal.encoders.families import family
from crossmodal.encoders.lite import model as lite_model
from crossmodal.encoders.lite import settings as lite_settings
from crossmodal.errors import EncoderError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "green", "dog", "cat", "a", "and"]
TEXTS = ["a red dog", "", "cat", "a green cat and a red dog", "dog " * 60, "a cat and a dog"]
LIMIT = 24


def write_tokenizer(folder):
    file = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    file.normalizer, file.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    file.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    PreTrainedTokenizerFast(
        tokenizer_object=file, pad_token="[PAD]", cls_token="[CLS]", model_max_length=LIMIT
    ).save_pretrained(folder)


def write_bert(folder, seed=0):
    torch.manual_seed(seed)
    sizes = {"vocab_size": 16, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(**sizes, intermediate_size=48, max_position_embeddings=64, initializer_range=0.2)
    BertModel(config).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A folder with a ViT's weights, their classifier too, a ResNet's, and a BERT."""
    folder = tmp_path_factory.mktemp("parts")
    torch.manual_seed(1)
    for name in ("test_vit", "test_resnet"):
        net = timm.create_model(name)
        for layer in net.modules():  # statistics that a forgotten eval() would not survive
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.1)
        save_file(net.state_dict(), folder / f"{name}.safetensors")
    write_bert(folder / "bert")
    return folder


@pytest.fixture(scope="module")
def pictures():
    random = np.random.default_rng(0)
    sizes = [(200, 150), (161, 320), (90, 70), (160, 160)]
    return [Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8)) for size in sizes]


def spec(parts, image="test_vit", options=""):
    return f"towers:{image}/{parts}/{image}.safetensors+{parts / 'bert'}?dim=24&{options}"


def timm_net(parts, name, **arguments):
    net = timm.create_model(name, **arguments)
    net.load_state_dict(load_file(parts / f"{name}.safetensors"))
    return net.eval()


def cosines(left, right):
    return (left * right).sum(1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)


@torch.inference_mode()
def images_by_hand(parts, name, pictures, head):
    """Embed as timm's own documentation does: its transform, its model, and our head on top."""
    net = timm_net(parts, name)
    transform = create_transform(**resolve_model_data_config(net), is_training=False)
    batch = torch.stack([transform(picture) for picture in pictures])
    return normalize(head(net.forward_head(net.forward_features(batch), pre_logits=True)), dim=-1).numpy()


@torch.inference_mode()
def texts_by_hand(folder, texts, head, pool):
    """Embed as the documentation of transformers does: padded, masked, pooled."""
    tokens = AutoTokenizer.from_pretrained(folder)(
        texts, padding=True, truncation=True, max_length=LIMIT, return_tensors="pt"
    )
    mask = tokens["attention_mask"]
    states = AutoModel.from_pretrained(folder).eval()(tokens["input_ids"], mask).last_hidden_state
    pooled = states[:, 0]
    if pool == "mean":
        pooled = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return normalize(head(pooled), dim=-1).numpy()


@pytest.mark.parametrize("backend", ["torch", "openvino"])
@pytest.mark.parametrize(
    ("image", "head", "pool"), [("test_vit", "mlp", "mean"), ("test_resnet", "linear", "cls")]
)
def test_embeddings_are_those_of_timm_and_transformers(parts, pictures, backend, image, head, pool):
    name = spec(parts, image, f"head={head}&text_pool={pool}")
    encoder, owner = load_encoder(name, backend=backend), read_blueprint(name).load().owner
    expected = images_by_hand(parts, image, pictures, owner.image.head)
    assert cosines(encoder.encode_images(pictures), expected).min() > 0.99999
    assert cosines(encoder.encode_images(pictures[::-1]), expected[::-1]).min() > 0.99999
    alone = np.concatenate([encoder.encode_images([picture]) for picture in pictures])
    assert cosines(alone, expected).min() > 0.99999
    expected = texts_by_hand(parts / "bert", TEXTS, owner.text.head, pool)
    assert cosines(encoder.encode_texts(TEXTS), expected).min() > 0.99999
    assert cosines(encoder.encode_texts(TEXTS[::-1]), expected[::-1]).min() > 0.99999
    assert np.ptp(expected, axis=0).max() > 0.1  # else anything would agree


@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_generalised_pooling_runs_alike_with_padding_and_without(parts, pictures, backend):
    name = spec(parts, options="image_pool=generalised&text_pool=generalised")
    encoder, blueprint = load_encoder(name, backend=backend), read_blueprint(name)
    owner = blueprint.load().owner
    ids = blueprint.tokenizer(TEXTS)
    padded = torch.tensor([row + [0] * (LIMIT - len(row)) for row in ids])
    pixels = torch.from_numpy(np.stack([encoder.prepare_image(picture) for picture in pictures]))
    with torch.inference_mode():
        mask = (torch.arange(LIMIT) < torch.tensor([[len(row)] for row in ids])).long()
        texts = owner.project_text(owner.text_features(padded, mask), mask).numpy()
        images = owner.project_image(owner.image_features(pixels)).numpy()
    assert cosines(encoder.encode_texts(TEXTS), texts).min() > 0.99999
    assert cosines(encoder.encode_images(pictures), images).min() > 0.99999


@pytest.mark.parametrize("pool", ["cls", "mean"])
@torch.inference_mode()
def test_image_pools_are_over_the_tokens_of_the_tower(parts, pool):
    owner = read_blueprint(spec(parts, options=f"image_pool={pool}")).load().owner
    pixels = torch.randint(256, (2, 160, 160, 3), generator=torch.manual_seed(0), dtype=torch.uint8)
    scaled = (pixels.permute(0, 3, 1, 2) / 255 - owner.image.scale.mean) / owner.image.scale.std
    tokens = timm_net(parts, "test_vit").forward_features(scaled)
    expected = tokens[:, 0] if pool == "cls" else tokens[:, 1:].mean(1)
    torch.testing.assert_close(owner.image_features(pixels), expected, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_the_patches_of_a_map_are_what_generalised_pooling_sees(parts):
    owner = read_blueprint(spec(parts, "test_resnet", "image_pool=generalised")).load().owner
    pixels = torch.randint(256, (1, 160, 160, 3), generator=torch.manual_seed(0), dtype=torch.uint8)
    scaled = (pixels.permute(0, 3, 1, 2) / 255 - owner.image.scale.mean) / owner.image.scale.std
    seen = timm_net(parts, "test_resnet").forward_features(scaled)
    features = owner.image_features(pixels)
    assert features.shape == (1, seen.shape[2] * seen.shape[3], seen.shape[1])
    torch.testing.assert_close(features[0, 1], seen[0, :, 0, 1], rtol=1e-4, atol=1e-5)


def test_the_parts_of_lite_are_its_own_towers():
    owner = read_blueprint("towers:efficientnet_lite0+minilm?dim=8").load().owner
    pixels = torch.randint(256, (1, 224, 224, 3), generator=torch.manual_seed(0), dtype=torch.uint8)
    ids = torch.tensor([[101, 1037, 2417, 6207, 102]])
    with torch.inference_mode():
        seen = lite_model.ImageBackbone({"lite0": lite_model.load_efficientnet("lite0")})(pixels)
        features = seen[:, -lite_model.CLASSES - 1280 : -lite_model.CLASSES]
        sentences = lite_model.load_text_backbone()(ids)
        torch.testing.assert_close(owner.image_features(pixels), features, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(normalize(owner.text_features(ids)), sentences, rtol=1e-4, atol=1e-5)
    assert read_blueprint("towers:efficientnet_lite0+minilm").tokenizer.limit == lite_settings.TEXT_LIMIT


def test_gradients_reach_heads_and_poolings_and_the_temperature_through_cached_features(parts):
    options = "image_pool=generalised&text_pool=generalised"
    owner = read_blueprint(spec(parts, options=options)).load().owner.train()
    pixels = torch.randint(256, (3, 160, 160, 3), generator=torch.manual_seed(0), dtype=torch.uint8)
    ids, mask = torch.tensor([[2, 4, 3, 0], [2, 5, 6, 3], [2, 3, 0, 0]]), None
    mask = (torch.arange(4) < torch.tensor([[3], [4], [2]])).long()
    with torch.no_grad():
        pictures, texts = owner.image_features(pixels), owner.text_features(ids, mask)
    scores = owner.project_image(pictures) @ owner.project_text(texts, mask).T * owner.logit_scale.exp()
    torch.nn.functional.cross_entropy(scores, torch.arange(3)).backward()
    for name, parameter in owner.named_parameters():
        towers = name.startswith(("image.tower.", "text.tower."))
        assert (parameter.grad is None) == towers, name
        assert towers or parameter.grad.abs().max() > 0, name
    assert owner.logit_scale.item() == pytest.approx(np.log(1 / 0.07))


def test_heads_come_from_the_seed_and_the_fingerprint_tells_it(parts, caplog):
    one, same, other = (read_blueprint(spec(parts, options=f"seed={seed}")) for seed in (0, 0, 1))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    weights = [each.load().owner.image.head.mix.weight for each in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert "it finds nothing until it is trained" in caplog.text


def test_other_weights_make_another_fingerprint(parts, tmp_path):
    blueprints = []
    for seed in (0, 1):
        folder = write_bert(tmp_path / str(seed), seed)
        blueprints.append(read_blueprint(f"towers:test_vit/{parts}/test_vit.safetensors+{folder}"))
    assert blueprints[0].fingerprint != blueprints[1].fingerprint


def test_saved_and_read_back_everything_is_the_same_to_the_last_bit(parts, pictures, tmp_path):
    name = spec(parts, options="image_pool=generalised&text_pool=generalised&image_size=96")
    blueprint = read_blueprint(name)
    model = blueprint.load()
    model.owner.logit_bias = torch.nn.Parameter(torch.tensor(-10.0))
    save_checkpoint(model, blueprint, tmp_path / "saved")
    before, after = load_encoder(name, backend="torch"), load_encoder(f"{tmp_path}/saved", backend="torch")
    assert after.prepare_image(pictures[0]).shape == (96, 96, 3)
    np.testing.assert_array_equal(before.encode_images(pictures), after.encode_images(pictures))
    np.testing.assert_array_equal(before.encode_texts(TEXTS), after.encode_texts(TEXTS))
    owner = read_blueprint(f"{tmp_path}/saved").load().owner
    assert {key: value.tolist() for key, value in owner.state_dict().items()} == {
        key: value.tolist() for key, value in model.owner.state_dict().items()
    }


def test_the_export_is_read_back_by_timm_and_transformers_bit_for_bit(parts, tmp_path, capfd):
    blueprint = read_blueprint(spec(parts, options="image_size=96"))
    model = blueprint.load()
    capfd.readouterr()
    family("towers").export(model, blueprint, tmp_path)
    assert capfd.readouterr() == ("", "")  # no bars of transformers
    image = timm.create_model(f"local-dir:{tmp_path}/image", pretrained=True).eval()
    text = AutoModel.from_pretrained(tmp_path / "text").eval()
    batch, ids = torch.randn(2, 3, 96, 96, generator=torch.manual_seed(0)), torch.tensor([[2, 4, 6, 3]])
    with torch.inference_mode():
        assert torch.equal(image(batch), model.owner.image.tower(batch))
        assert torch.equal(text(ids).last_hidden_state, model.owner.text.tower(ids).last_hidden_state)
    assert resolve_model_data_config(image)["input_size"] == (3, 96, 96)
    read = AutoTokenizer.from_pretrained(tmp_path / "text")
    assert [read(each, truncation=True)["input_ids"] for each in TEXTS] == blueprint.tokenizer(TEXTS)
    again = read_blueprint(f"towers:local-dir:{tmp_path}/image+{tmp_path}/text?dim=24")
    assert again.preprocessing == blueprint.preprocessing
    heads = load_file(tmp_path / "heads.safetensors")
    names = {name for name in model.owner.state_dict() if ".tower." not in name}
    assert heads.keys() == names
    assert torch.equal(again.load().owner.image.tower(batch), image(batch))


def test_sentence_transformers_settings_are_taken_from_its_files(parts, tmp_path, caplog):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules

    bert = modules.Transformer(str(write_bert(tmp_path / "bert")), max_seq_length=9)
    peer = SentenceTransformer(modules=[bert, modules.Pooling(32, pooling_mode="cls")], device="cpu")
    peer.save(str(tmp_path / "sentences"))
    name = f"towers:test_vit/{parts}/test_vit.safetensors+{tmp_path}/sentences"
    blueprint = read_blueprint(name)
    assert (blueprint.tokenizer.limit, blueprint.architecture["text"]["pool"]) == (9, "cls")
    owner = blueprint.load().owner
    with torch.inference_mode():
        ours = [owner.text_features(torch.tensor([ids]))[0].numpy() for ids in blueprint.tokenizer(TEXTS)]
    np.testing.assert_allclose(np.stack(ours), peer.encode(TEXTS), atol=1e-5)
    assert read_blueprint(f"{name}?text_pool=mean").architecture["text"]["pool"] == "mean"
    listed = json.loads((tmp_path / "sentences" / "modules.json").read_text())
    listed.append({"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    (tmp_path / "sentences" / "modules.json").write_text(json.dumps(listed))
    with caplog.at_level(logging.WARNING):
        read_blueprint(name)
    assert "its module Dense is left out" in caplog.text
    pooling = tmp_path / "sentences" / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({"pooling_mode_lasttoken": True}))
    with pytest.raises(EncoderError, match=r"pools by 'lasttoken'.*\?text_pool=mean"):
        read_blueprint(name)
