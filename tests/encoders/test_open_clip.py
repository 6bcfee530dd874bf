"""Encoders of open_clip beside open_clip itself, from the same files: towers of all kinds, tiny, random."""

import copy
import functools
import json
import math

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.models.eva import Eva
from timm.models.fastvit import FastVit
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, PreTrainedTokenizerFast

from crossmodal.encoders import load_encoder, read_blueprint
from crossmodal.encoders.checkpoint import save_checkpoint
from crossmodal.encoders.families import family

WORDS = ["[PAD]", "[UNK]", "[BOS]", "[EOS]", "a", "red", "apple", "word", "photo", "of", "the", "x"]
TEXTS = [
    "a red apple",
    "",
    "🍎🍏",
    "word " * 60,
    "تفاحة حمراء على الطاولة",
    "a photo <end_of_text> of [EOS] the [PAD] Apple",
    "A Photo, of the RED apple!",
    "x",
]
OPENAI_TEXT = {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
OWN_TEXT = {**OPENAI_TEXT, "vocab_size": len(WORDS), "hf_tokenizer_name": "here"}
VIT = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8}
SIGLIP_WAY = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}

MODELS = {
    "vit": ({"vision_cfg": VIT, "text_cfg": OPENAI_TEXT}, {}),
    "vit_padding_pictures": (
        {"vision_cfg": VIT, "text_cfg": OPENAI_TEXT},
        {"resize_mode": "longest", "interpolation": "bilinear", "fill_color": 90},
    ),
    "quickgelu": ({"quick_gelu": True, "vision_cfg": VIT, "text_cfg": OPENAI_TEXT}, {}),
    "resnet": (
        {
            "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
            "text_cfg": OPENAI_TEXT,
        },
        {},
    ),
    "siglip": (
        {
            "custom_text": True,
            "init_logit_bias": -10,
            "embed_dim": 64,
            "vision_cfg": {
                "image_size": 160,
                "timm_model_name": "test_vit",
                "timm_pool": "map",
                "timm_proj": "none",
            },
            "text_cfg": {
                **OWN_TEXT,
                "tokenizer_kwargs": {"clean": "canonicalize"},
                "no_causal_mask": True,
                "proj_bias": True,
                "pool_type": "last",
                "norm_kwargs": {"eps": 1e-6},
                "act_kwargs": {"approximate": "tanh"},
            },
        },
        SIGLIP_WAY,
    ),
    "coca": (
        {
            "custom_text": True,
            "vision_cfg": {**VIT, "attentional_pool": True, "attn_pooler_heads": 4, "output_tokens": True},
            "text_cfg": {**OPENAI_TEXT, "embed_cls": True, "output_tokens": True},
            "multimodal_cfg": {**OPENAI_TEXT, "attn_pooler_heads": 2},
        },
        {},
    ),
    "mobileclip": (
        {
            "custom_text": True,
            "vision_cfg": {
                "image_size": 64,
                "timm_model_name": "tiny_fastvit",
                "timm_pool": "avg",
                "timm_proj": None,
                "timm_drop": 0.0,
                "timm_drop_path": 0.0,
            },
            "text_cfg": {**OPENAI_TEXT, "no_causal_mask": True},
        },
        {"mean": [0] * 3, "std": [1] * 3, "interpolation": "bilinear"},  # whole numbers, as some files have
    ),
    "pe_core": (
        {
            "custom_text": True,
            "vision_cfg": {
                "image_size": 64,
                "timm_model_name": "tiny_pe_core",
                "timm_pool": "map",
                "timm_proj": None,
            },
            "text_cfg": OPENAI_TEXT,
        },
        {**SIGLIP_WAY, "interpolation": "bilinear"},
    ),
    "convnext": (
        {
            "vision_cfg": {
                "image_size": 160,
                "timm_model_name": "test_convnext",
                "timm_pool": "",
                "timm_proj": "linear",
            },
            "text_cfg": OPENAI_TEXT,
        },
        {},
    ),
    "metaclip2": (
        {"vision_cfg": VIT, "text_cfg": {**OWN_TEXT, "pool_type": "eos", "eos_id": WORDS.index("[EOS]")}},
        {},
    ),
    "bert": (
        {
            "vision_cfg": {**VIT, "output_tokens": False},
            "text_cfg": {
                "hf_model_name": "here",
                "hf_tokenizer_name": "here",
                "hf_proj_type": "mlp",
                "hf_pooler_type": "mean_pooler",
                "context_length": 20,
            },
        },
        {},
    ),
}


@timm.models.register_model
def tiny_fastvit(pretrained=False, **kwargs):
    sizes = {"layers": (1, 1, 1, 1), "embed_dims": (16, 16, 32, 32), "mlp_ratios": (2, 2, 2, 2)}
    mixers = ("repmixer", "repmixer", "repmixer", "attention")
    return FastVit(**sizes, token_mixers=mixers, **own(kwargs))


@timm.models.register_model
def tiny_pe_core(pretrained=False, **kwargs):
    """What sets PE-Core apart from other vision transformers: rotary positions, attention pooling."""
    size = {"img_size": 64, "patch_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2}
    rotary = {"use_rot_pos_emb": True, "ref_feat_shape": (4, 4), "rope_grid_offset": 1.0}
    return Eva(**size, **rotary, attn_pool_num_heads=2, use_pre_transformer_norm=True, **own(kwargs))


def own(kwargs):
    """Leave out what timm hands to the builders of models that have pretrained weights."""
    return {
        k: v for k, v in kwargs.items() if k in ("num_classes", "global_pool", "drop_rate", "drop_path_rate")
    }


def stir(model):
    """Give random weights under which different inputs come out far apart, normalisations included."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise * math.sqrt(2 / math.prod(parameter.shape[1:])))
            elif parameter.ndim == 1:
                parameter.add_(0.1 * noise)
        for name, buffer in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.add_(0.2 * torch.rand(buffer.shape, generator=generator))


def write_tokenizer(folder):
    file = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    file.normalizer = normalizers.Lowercase()
    file.pre_tokenizer = pre_tokenizers.Whitespace()
    file.post_processor = processors.TemplateProcessing("[BOS] $A [EOS]", None, [("[BOS]", 2), ("[EOS]", 3)])
    marks = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[BOS]", "eos_token": "[EOS]"}
    PreTrainedTokenizerFast(tokenizer_object=file, **marks, cls_token="[BOS]").save_pretrained(folder)


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    """Write a model as a folder that open_clip reads as it is, and give the spec of the folder."""
    written = {}

    def write(name):
        if name not in written:
            written[name] = write_model(tmp_path_factory.mktemp(name), *MODELS[name])
        return f"local-dir:{written[name]}"

    return write


def write_model(folder, model_cfg, preprocess_cfg):
    model_cfg = copy.deepcopy({"embed_dim": 24, **model_cfg})
    text_cfg = model_cfg["text_cfg"]
    if "hf_tokenizer_name" in text_cfg:
        write_tokenizer(folder)
    if "hf_model_name" in text_cfg:
        text_cfg["hf_model_name"] = str(folder / "bert")
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        BertConfig(vocab_size=len(WORDS), max_position_embeddings=32, **sizes).save_pretrained(
            folder / "bert"
        )
    config = {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False)
    stir(model)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Picture files of several shapes, smaller and larger than the towers want them, one of them grey."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(5)
    shapes = [(40, 60, 3), (64, 64, 3), (31, 33, 3), (90, 20), (190, 240, 3), (125, 127, 3)]
    paths = []
    for place, shape in enumerate(shapes):
        small = Image.fromarray(generator.integers(0, 256, (6, 6, *shape[2:]), np.uint8))
        paths.append(folder / f"{place}.{'jpg' if place % 2 else 'png'}")
        small.resize(shape[1::-1], Image.Resampling.BICUBIC).save(paths[-1])
    return paths


@pytest.fixture(scope="module", autouse=True)
def quiet_machine(tmp_path_factory):
    """Keep what is prepared out of the user's cache; towers this small run on one thread best."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROSSMODAL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def expected(spec, pictures):
    """Embed as open_clip's users do, once for each model."""
    return functools.cache(lambda name: owners(spec(name), pictures, TEXTS))


def owners(spec, pictures, texts):
    model, _, transform = open_clip.create_model_and_transforms(spec)
    tokenizer = open_clip.get_tokenizer(spec)
    with torch.inference_mode():
        pixels = torch.stack([transform(Image.open(picture)) for picture in pictures])
        images = model.eval().encode_image(pixels, normalize=True)
        return images.numpy(), model.encode_text(tokenizer(texts), normalize=True).numpy()


def cosines(ours, theirs):
    return (ours * theirs).sum(axis=1)


def apart(embeddings):
    return (embeddings @ embeddings.T)[~np.eye(len(embeddings), dtype=bool)].max()


@pytest.mark.parametrize("backend", ["torch", "openvino"])
@pytest.mark.parametrize("name", MODELS)
def test_embeddings_equal_open_clips_in_any_company_and_order(name, backend, spec, pictures, expected):
    images, texts = expected(name)
    for theirs in (images, texts):  # or nothing would be compared
        assert apart(np.unique(theirs.round(4), axis=0)) < 0.9995

    encoder = load_encoder(f"open_clip:{spec(name)}", backend=backend, batch_size=4)
    order = np.random.default_rng(1).permutation(len(TEXTS))
    assert cosines(encoder.encode_images(pictures), images).min() > 0.99999
    assert cosines(encoder.encode_images(pictures[::-1][:3]), images[::-1][:3]).min() > 0.99999
    assert cosines(encoder.encode_texts(TEXTS), texts).min() > 0.99999
    assert cosines(encoder.encode_texts([TEXTS[row] for row in order]), texts[order]).min() > 0.99999
    assert cosines(encoder.encode_texts(TEXTS[5:6]), texts[5:6]).min() > 0.99999


@pytest.mark.parametrize("name", MODELS)
def test_pixels_equal_open_clips_transform(name, spec, pictures):
    blueprint = read_blueprint(f"open_clip:{spec(name)}")
    tower, seen = blueprint.load().image, []
    tower.encode.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    _, _, transform = open_clip.create_model_and_transforms(spec(name))
    for picture in pictures:
        tower(torch.from_numpy(blueprint.preprocessing(picture))[None])
        torch.testing.assert_close(seen[-1][0], transform(Image.open(picture)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_a_checkpoint_gives_the_same_embeddings_bit_for_bit(name, spec, pictures, tmp_path):
    blueprint = read_blueprint(f"open_clip:{spec(name)}")
    save_checkpoint(blueprint.load(), blueprint, tmp_path / "saved")
    before, after = (load_encoder(s, backend="torch") for s in (blueprint.name, str(tmp_path / "saved")))
    np.testing.assert_array_equal(after.encode_images(pictures), before.encode_images(pictures))
    np.testing.assert_array_equal(after.encode_texts(TEXTS), before.encode_texts(TEXTS))
    assert after.card.dim == before.card.dim
    assert after.card.text_limit == before.card.text_limit


@pytest.mark.parametrize("name", MODELS)
def test_open_clip_reads_what_a_checkpoint_exports_bit_for_bit(name, spec, pictures, expected, tmp_path):
    blueprint = read_blueprint(f"open_clip:{spec(name)}")
    save_checkpoint(blueprint.load(), blueprint, tmp_path / "saved")
    restored = read_blueprint(str(tmp_path / "saved"))
    family("open_clip").export(restored.load(), restored, tmp_path / "exported")
    images, texts = expected(name)
    exported = owners(f"local-dir:{tmp_path / 'exported'}", pictures, TEXTS)
    np.testing.assert_array_equal(exported[0], images)
    np.testing.assert_array_equal(exported[1], texts)
