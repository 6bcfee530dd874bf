"""What the tests of training share: examples made on the spot."""

import json
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import timm
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    PreTrainedTokenizerFast,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
    VisionTextDualEncoderProcessor,
    ViTConfig,
    ViTImageProcessor,
)

from crossmodal.sources import open_source
from training.data.examples import Examples, read_examples

COLOURS = ("red", "green", "blue", "yellow", "black", "white", "orange", "purple")


@pytest.fixture
def make_examples(tmp_path: Path, make_picture: Callable[..., Path]) -> Callable[..., Examples]:
    """Give examples with these captions each: ``make_examples([["a dog"], ["a cat", "cat"]])``."""

    def make(captions: list[list[str]], negatives: list[list[str]] | None = None) -> Examples:
        rows = []
        for number, own in enumerate(captions):
            picture = make_picture(tmp_path / f"{number:03}.png", COLOURS[number % 8], number)
            row = {"image": picture.name, "captions": own}
            if negatives:
                row["negatives"] = negatives[number]
            rows.append(row)
        table = tmp_path / "pairs.jsonl"
        table.write_text("\n".join(json.dumps(row) for row in rows))
        return read_examples(open_source(str(table)))

    return make


class Letters:
    """A tokenizer of letters, with a mark at each end."""

    limit = 12
    padded = False

    def __call__(self, texts: list[str]) -> list[list[int]]:
        return [[1, *map(ord, text[: self.limit - 2]), 2] for text in texts]

    def lengths(self, texts: list[str]) -> list[int]:
        return [len(text) + 2 for text in texts]


@pytest.fixture
def letters() -> Letters:
    """A tokenizer of letters."""
    return Letters()


@pytest.fixture(scope="session")
def tiny_parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the weights of two small image models and a BERT with its tokenizer, drawn at random."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    for name in ("test_vit", "test_efficientnet"):
        net = timm.create_model(name)
        save_file(net.state_dict(), folder / f"{name}.safetensors")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "picture", *COLOURS, *map(str, range(10))]
    file = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    file.normalizer, file.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    file.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    PreTrainedTokenizerFast(
        tokenizer_object=file, pad_token="[PAD]", cls_token="[CLS]", model_max_length=16
    ).save_pretrained(folder / "bert")
    sizes = {"vocab_size": 32, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    BertModel(BertConfig(**sizes, intermediate_size=48, max_position_embeddings=32)).save_pretrained(
        folder / "bert"
    )
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_parts: Path) -> Callable[..., str]:
    """Give the spec of small towers: ``tiny()``, or ``tiny("test_efficientnet")``, which has batch norms."""

    def spec(image: str = "test_vit", options: str = "dim=16&image_size=32") -> str:
        weights = tiny_parts / f"{image}.safetensors"
        return f"towers:{image}/{weights}+{tiny_parts / 'bert'}?{options}"

    return spec


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give the spec of a small CLIP of open_clip, drawn at random."""
    folder = tmp_path_factory.mktemp("clip")
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
        "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }
    torch.manual_seed(0)
    save_file(open_clip.CLIP(**config).state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    return f"open_clip:local-dir:{folder}"


@pytest.fixture(scope="session")
def tiny_hf(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give the spec of a small dual encoder of transformers, whose text tower sees all of a text at once."""
    folder = tmp_path_factory.mktemp("hf")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "small", "red", "bird", "on", "picture"]
    tokenizer = BertTokenizer(vocab={word: n for n, word in enumerate(words)}, model_max_length=16)
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    image = ViTConfig(**small, image_size=32, patch_size=8)
    text = BertConfig(**small, vocab_size=32, max_position_embeddings=32, initializer_range=0.2)
    config = VisionTextDualEncoderConfig.from_vision_text_configs(image, text, projection_dim=16)
    torch.manual_seed(0)
    VisionTextDualEncoderModel(config).save_pretrained(folder)
    pixels = ViTImageProcessor(size={"height": 32, "width": 32})
    VisionTextDualEncoderProcessor(pixels, tokenizer).save_pretrained(folder)
    return f"hf:{folder}"
