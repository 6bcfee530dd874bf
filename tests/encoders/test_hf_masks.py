"""Models that look at their padding and are told where it is: the mask, and what OpenVINO makes of it."""

import itertools

import numpy as np
import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn

from crossmodal.encoders import load_encoder
from crossmodal.encoders.hf.model import TextTower
from crossmodal.encoders.hf.tokens import TokenSettings

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "apple", "two", "dogs"]
TEXTS = ["a red apple", "two dogs", "", " ", "pear", "plum", "dogs " * 50]
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A SigLIP whose tokenizer gives an attention mask."""
    folder = tmp_path_factory.mktemp("siglip")
    file = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    file.pre_tokenizer = pre_tokenizers.Whitespace()
    file.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    marks = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    hf.PreTrainedTokenizerFast(tokenizer_object=file, model_max_length=24, **marks).save_pretrained(folder)
    ids = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    text = {**TOWER, **ids, "vocab_size": 300, "max_position_embeddings": 24, "projection_size": 32}
    torch.manual_seed(0)
    model = hf.SiglipModel(
        hf.SiglipConfig(text_config=text, vision_config={**TOWER, "image_size": 64, "patch_size": 16})
    )
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.08)
        elif "bias" in name:
            nn.init.normal_(parameter, std=0.05)
    model.save_pretrained(folder)
    hf.SiglipImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_masked_texts_are_embedded_as_transformers_does_in_any_company(folder, backend):
    tokenizer, model = hf.AutoTokenizer.from_pretrained(folder), hf.AutoModel.from_pretrained(folder).eval()
    taken = tokenizer(TEXTS, padding="max_length", truncation=True, return_tensors="pt")
    with torch.inference_mode():
        found = model.get_text_features(
            input_ids=taken["input_ids"], attention_mask=taken["attention_mask"]
        ).pooler_output
    expected = nn.functional.normalize(found, dim=-1).numpy()
    for _start in range(2):  # the second one finds the tower in the cache
        encoder = load_encoder(f"hf:{folder}", backend=backend)
        assert (encoder.encode_texts(TEXTS) * expected).sum(1).min() > 0.99999
        assert (encoder.encode_texts(TEXTS[::-1]) * expected[::-1]).sum(1).min() > 0.99999
        for text, row in zip(TEXTS, expected, strict=True):
            assert (encoder.encode_texts([text])[0] * row).sum() > 0.99999


@pytest.mark.parametrize("pad_side", ["left", "right"])
@pytest.mark.parametrize("ends_with_pad", [False, True])
def test_the_mask_is_what_counting_padding_gives(pad_side, ends_with_pad):
    settings = TokenSettings(
        limit=5, padded=True, masked=True, pad_id=0, ends_with_pad=ends_with_pad, pad_side=pad_side,
        fast=True, files=(),
    )  # fmt: skip
    rows = list(itertools.product([0, 7], repeat=5))
    expected = []
    for row in rows:
        ids = list(row) if pad_side == "right" else list(row)[::-1]
        real = max((place + 1 for place, token in enumerate(ids) if token), default=0)
        more = int(ends_with_pad and pad_side == "right")
        mask = [int(place < max(real + more, 1)) for place in range(5)]
        expected.append(mask if pad_side == "right" else mask[::-1])
    mask = TextTower(nn.Module(), settings)._mask(torch.tensor(rows))
    np.testing.assert_array_equal(mask.numpy(), expected)
