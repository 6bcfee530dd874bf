"""Steps of training on made-up pairs, for `bench_training.py`: a model of open_clip with random weights."""

import logging
from dataclasses import dataclass
from typing import Any

import open_clip
import torch
from torch import Tensor

SEED = 0
logging.getLogger().setLevel(logging.ERROR)  # open_clip warns of random weights, which are meant


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Pixels as they come from files, uint8 (B, H, W, 3), and token ids (B, T)."""

    pixels: Tensor
    ids: Tensor


def make_model(name: str, tokens: int) -> Any:
    """Build a model for captions of ``tokens`` tokens, the same each time, in train mode and float32."""
    torch.manual_seed(SEED)
    return open_clip.create_model(name, force_context_length=tokens).train()


def make_pairs(model: Any, count: int) -> Pairs:
    """Make pairs of noise; each caption ends with its end mark, the largest id."""
    generator = torch.Generator().manual_seed(SEED)
    side, vocabulary = model.visual.image_size[0], model.vocab_size
    pixels = torch.randint(0, 256, (count, side, side, 3), generator=generator, dtype=torch.uint8)
    ids = torch.randint(1, vocabulary - 1, (count, model.context_length), generator=generator)
    ids[:, -1] = vocabulary - 1
    return Pairs(pixels=pixels, ids=ids)


def scaled(pixels: Tensor) -> Tensor:
    """Give pixels as the model takes them: float32 (B, 3, H, W) from -1 to 1."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
