"""Twin encoders of transformers against transformers itself: its processors, its models, its files."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image
from tokenizers import pre_tokenizers

from crossmodal.encoders import load_encoder, read_blueprint
from crossmodal.encoders.checkpoint import save_checkpoint
from crossmodal.encoders.families import family

LIMIT, SIZE = 20, 32
TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
EYES = {**TOWER, "image_size": SIZE, "patch_size": 8}
WORDS = ["red", "apple", "the", "cat", "a", "of", "##s", "红", "苹", "果", "!"]
TEXTS = [
    "a red apple",
    "",
    "The CAT of the cats!",
    "🍎🍏",
    "تفاحة حمراء",
    "红苹果",
    "a",
    "the red cat " * 3_000,
    "lone \ud83c\udf4e pair",
]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    """Models as small as these only wait for torch's threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def clip_tokenizer() -> Any:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*alphabet, *(f"{letter}</w>" for letter in alphabet), "re", "red</w>", "th", "the</w>"]
    marks = ["<|startoftext|>", "<|endoftext|>"]
    merges = [("r", "e"), ("re", "d</w>"), ("t", "h"), ("th", "e</w>")]
    vocabulary = {piece: number for number, piece in enumerate([*pieces, *marks])}
    return hf.CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=LIMIT)


def bert_tokenizer() -> Any:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    return hf.BertTokenizer(vocab={piece: n for n, piece in enumerate(pieces)}, model_max_length=LIMIT)


def gemma_tokenizer(**options: Any) -> Any:
    marks = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    pieces = [*marks, *(f"<0x{byte:02X}>" for byte in range(256)), *"abcdefghijklmnopqrst▁", "re", "red"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    return hf.Siglip2Tokenizer(
        vocab=vocabulary, merges=[("r", "e"), ("re", "d")], add_eos_token=True, **options
    )


def xlmr_tokenizer() -> Any:
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *(f"▁{word}" for word in WORDS), *"abcdehlprt▁", "<mask>"]
    vocabulary = [(piece, -float(number)) for number, piece in enumerate(pieces)]
    return hf.XLMRobertaTokenizer(vocab=vocabulary, model_max_length=LIMIT)


def cropping(kind: Any = hf.CLIPImageProcessor) -> Any:
    return kind(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})


def clip(tokenizer: Any) -> tuple[Any, Any]:
    text = text_tower(tokenizer, eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.bos_token_id)
    config = hf.CLIPConfig(text_config=text, vision_config=EYES, projection_dim=16)
    return hf.CLIPModel(config), hf.CLIPProcessor(cropping(), tokenizer)


def old_clip(tokenizer: Any) -> tuple[Any, Any]:
    model, processor = clip(tokenizer)
    model.config.text_config.eos_token_id = (
        2  # as the first files of CLIP say; the largest id is the end mark
    )
    return hf.CLIPModel(model.config), processor


def clipseg(tokenizer: Any) -> tuple[Any, Any]:
    text = text_tower(tokenizer, eos_token_id=tokenizer.eos_token_id)
    config = hf.CLIPSegConfig(text_config=text, vision_config=EYES, projection_dim=16, extract_layers=[0, 1])
    processor = hf.ViTImageProcessor(
        size={"height": 48, "width": 48}
    )  # larger than the tower's own, as usual
    return hf.CLIPSegForImageSegmentation(config), hf.CLIPSegProcessor(processor, tokenizer)


def siglip(tokenizer: Any) -> tuple[Any, Any]:
    text = text_tower(tokenizer, projection_size=32)
    config = hf.SiglipConfig(text_config=text, vision_config=EYES)
    processor = hf.SiglipImageProcessor(size={"height": SIZE, "width": SIZE})
    return hf.SiglipModel(config), hf.SiglipProcessor(processor, tokenizer)


def align(tokenizer: Any) -> tuple[Any, Any]:
    eyes = {
        "image_size": SIZE,
        "width_coefficient": 1.0,
        "depth_coefficient": 0.2,
        "hidden_dim": 16,
        "kernel_sizes": [3, 5],
        "in_channels": [32, 8],
        "out_channels": [8, 16],
        "strides": [2, 2],
        "num_block_repeats": [1, 1],
        "expand_ratios": [1, 2],
        "depthwise_padding": [],
    }
    text = text_tower(tokenizer, max_position_embeddings=128)
    config = hf.AlignConfig(text_config=text, vision_config=eyes, projection_dim=16)
    processor = hf.EfficientNetImageProcessor(
        size={"height": 40, "width": 40},
        crop_size={"height": SIZE, "width": SIZE},
        do_center_crop=True,
        rescale_factor=1 / 127.5,
        rescale_offset=True,
        do_normalize=False,
        include_top=False,
    )
    tokenizer.model_max_length = 128
    return hf.AlignModel(config), hf.AlignProcessor(processor, tokenizer)


def chinese_clip(tokenizer: Any) -> tuple[Any, Any]:
    config = hf.ChineseCLIPConfig(text_config=text_tower(tokenizer), vision_config=EYES, projection_dim=16)
    processor = hf.ChineseCLIPImageProcessor(size={"height": SIZE, "width": SIZE}, do_center_crop=False)
    return hf.ChineseCLIPModel(config), hf.ChineseCLIPProcessor(processor, tokenizer)


def altclip(tokenizer: Any) -> tuple[Any, Any]:
    text = text_tower(tokenizer, max_position_embeddings=LIMIT + 2, project_dim=24)
    config = hf.AltCLIPConfig(text_config=text, vision_config=EYES, projection_dim=16)
    return hf.AltCLIPModel(config), hf.AltCLIPProcessor(cropping(), tokenizer)


def vit_and_bert(tokenizer: Any) -> tuple[Any, Any]:
    text = hf.BertConfig(**text_tower(tokenizer))
    config = hf.VisionTextDualEncoderConfig.from_vision_text_configs(
        hf.ViTConfig(**EYES), text, projection_dim=16
    )
    processor = hf.ViTImageProcessor(size={"height": SIZE, "width": SIZE})
    return hf.VisionTextDualEncoderModel(config), hf.VisionTextDualEncoderProcessor(processor, tokenizer)


def groupvit(tokenizer: Any) -> tuple[Any, Any]:
    groups = {"depths": [1, 1], "num_group_tokens": [4, 0], "num_output_groups": [4, 2]}
    config = hf.GroupViTConfig(
        text_config=text_tower(tokenizer, eos_token_id=tokenizer.eos_token_id),
        vision_config={**EYES, **groups},
        projection_dim=16,
        projection_intermediate_dim=24,
    )
    return hf.GroupViTModel(config), hf.CLIPProcessor(cropping(), tokenizer)


def metaclip(tokenizer: Any) -> tuple[Any, Any]:
    text = text_tower(tokenizer, eos_token_id=tokenizer.eos_token_id)
    config = hf.MetaClip2Config(text_config=text, vision_config=EYES, projection_dim=16)
    return hf.MetaClip2Model(config), hf.CLIPProcessor(cropping(), tokenizer)


def owlvit(tokenizer: Any) -> tuple[Any, Any]:
    text = text_tower(tokenizer, eos_token_id=tokenizer.eos_token_id)
    config = hf.OwlViTConfig(text_config=text, vision_config=EYES, projection_dim=16)
    return hf.OwlViTModel(config), hf.CLIPProcessor(cropping(), tokenizer)


def text_tower(tokenizer: Any, **more: Any) -> dict[str, Any]:
    own = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": LIMIT,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return {**TOWER, **own, **more}


@dataclass(frozen=True)
class Case:
    """A kind of model, and how its authors have its processor called for texts."""

    build: Callable[[Any], tuple[Any, Any]]
    tokenizer: Callable[[], Any]
    texts: dict[str, Any] = field(default_factory=lambda: {"padding": True})
    limit: int = LIMIT


TO_THE_END = {"padding": "max_length", "max_length": LIMIT}
CASES = {
    "clip": Case(clip, clip_tokenizer),
    "old_clip": Case(old_clip, clip_tokenizer),
    "clipseg": Case(clipseg, clip_tokenizer),
    "siglip": Case(
        siglip, lambda: gemma_tokenizer(model_input_names=["input_ids"], padding_side="right"), TO_THE_END
    ),
    "siglip2_fixed": Case(siglip, gemma_tokenizer, TO_THE_END),
    "align": Case(align, bert_tokenizer, {}, limit=64),
    "chinese_clip": Case(chinese_clip, bert_tokenizer),
    "altclip": Case(altclip, xlmr_tokenizer),
    "groupvit": Case(groupvit, clip_tokenizer),
    "metaclip": Case(metaclip, xlmr_tokenizer),
    "owlvit": Case(owlvit, clip_tokenizer),
    "siglip_ends_with_padding": Case(
        siglip, lambda: gemma_tokenizer(pad_token="<eos>", padding_side="right"), TO_THE_END
    ),
    "vit_and_bert": Case(vit_and_bert, bert_tokenizer),
    "vit_and_slow_tokenizer": Case(vit_and_bert, lambda: hf.ByT5Tokenizer(model_max_length=LIMIT)),
}


@pytest.fixture(scope="module", params=CASES)
def case(request: Any) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def folder(case: Case, tmp_path_factory: Any) -> Path:
    """A model of random weights, large enough to tell inputs apart, and its processor, as a user has them."""
    torch.manual_seed(0)
    model, processor = case.build(case.tokenizer())
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.3)
    target = tmp_path_factory.mktemp("hf") / "model"
    model.save_pretrained(target)
    processor.save_pretrained(target)
    return target


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: Any) -> list[Path]:
    """Blurred colours, as PNG and JPEG: small, square, wide and tall."""
    rng, target, paths = np.random.default_rng(0), tmp_path_factory.mktemp("pictures"), []
    for size in ((32, 32), (50, 31), (20, 70), (90, 77), (120, 90), (63, 190)):
        for suffix in ("png", "jpg"):
            grain = Image.fromarray(rng.integers(0, 256, (5, 4, 3), np.uint8))
            paths.append(target / f"{size[0]}.{suffix}")
            grain.resize(size, Image.Resampling.BICUBIC).save(paths[-1])
    return paths


@pytest.fixture(scope="module")
def theirs(case: Case, folder: Path, pictures: list[Path]) -> tuple[Any, Any]:
    return expected(folder, case, pictures)


def expected(folder: Path, case: Case, pictures: list[Path]) -> tuple[Any, Any]:
    """What transformers makes of all pictures and texts, each in one batch."""
    model, processor = hf.AutoModel.from_pretrained(folder).eval(), hf.AutoProcessor.from_pretrained(folder)
    opened = [Image.open(path) for path in pictures]
    whole = [text.encode("utf-16", "surrogatepass").decode("utf-16") for text in TEXTS]
    with torch.inference_mode():
        image = model.get_image_features(**processor(images=opened, return_tensors="pt"))
        options = {"truncation": True, "return_tensors": "pt", **case.texts}
        text = model.get_text_features(**processor(text=whole, **options))
    return tuple(torch.nn.functional.normalize(out.pooler_output, dim=1).numpy() for out in (image, text))


def assert_same(ours: Any, theirs: Any) -> None:
    assert ours.shape == theirs.shape
    assert ours.dtype == np.float32
    np.testing.assert_allclose((ours * theirs).sum(1), 1, atol=1e-5, rtol=0)


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_files_and_texts_become_what_transformers_makes_of_them(case, folder, pictures, theirs, backend):
    images, texts = theirs
    for rows in (images, texts):
        nearest = np.sort(rows @ rows.T, axis=1)[:, -2]
        assert np.median(nearest) < 0.999, "the model tells its inputs apart too poorly to test anything"
    encoder = load_encoder(f"hf:{folder}", backend=backend, batch_size=5)
    assert encoder.card.text_limit == case.limit
    assert_same(encoder.encode_images(pictures), images)
    assert_same(encoder.encode_texts(TEXTS), texts)
    for order in ([3, 0], [5], [6, 7, 2, 1]):
        assert_same(encoder.encode_images([pictures[row] for row in order]), images[order])
        assert_same(encoder.encode_texts([TEXTS[row] for row in order]), texts[order])


def test_pixels_equal_the_processors_own_output(folder, pictures):
    blueprint = read_blueprint(f"hf:{folder}")
    tower, processor = blueprint.load().image, hf.AutoImageProcessor.from_pretrained(folder)
    for path in (path for path in pictures if path.suffix == ".png"):
        pixels = torch.from_numpy(blueprint.preprocessing(path)).permute(2, 0, 1)
        scaled = (pixels / 255 - tower.scale.mean) / tower.scale.std
        own = processor(images=Image.open(path), return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(scaled, own, atol=1e-6, rtol=1e-6)


def test_tokens_are_the_tokenizers_own(case, folder):
    tokenize, tokenizer = read_blueprint(f"hf:{folder}").tokenizer, hf.AutoTokenizer.from_pretrained(folder)
    texts = [text for text in TEXTS if "\ud83c" not in text]
    padding = {"padding": "max_length"} if tokenize.padded else {}
    own = tokenizer(texts, truncation=True, max_length=case.limit, **padding)["input_ids"]
    assert tokenize(texts) == own
    assert tokenize.lengths(texts) == [len(ids) for ids in tokenizer(texts)["input_ids"]]
    assert tokenize([]) == []


def embeddings(spec: str, pictures: list[Path]) -> tuple[Any, Any]:
    encoder = load_encoder(spec, backend="torch")
    return encoder.encode_images(pictures), encoder.encode_texts(TEXTS)


def test_saving_and_exporting_keep_every_bit(case, folder, pictures, theirs, tmp_path):
    saved, exported = tmp_path / "saved", tmp_path / "exported"
    blueprint = read_blueprint(f"hf:{folder}")
    save_checkpoint(blueprint.load(), blueprint, saved)
    restored = read_blueprint(str(saved))
    family("hf").export(restored.load(), restored, exported)
    before = embeddings(f"hf:{folder}", pictures)
    pairs = [
        *zip(before, embeddings(str(saved), pictures), strict=True),
        *zip(before, embeddings(f"hf:{exported}", pictures), strict=True),
        *zip(theirs, expected(exported, case, pictures), strict=True),
    ]
    for one, other in pairs:
        np.testing.assert_array_equal(one, other)
    config = json.loads((saved / "config.json").read_bytes())
    assert config["architecture"]["text_config"]["hidden_act"], "what a class fills in is written down, too"
