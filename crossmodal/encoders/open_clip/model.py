"""open_clip's own model, built and filled with its weights, and the two towers around its layers."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from open_clip import CLIP, CoCa, CustomTextCLIP
from open_clip.model import (
    set_model_preprocess_cfg,
    text_global_pool,
)
from open_clip.transformer import TextTransformer
from torch import Tensor, nn
from torch.nn import functional

from crossmodal.encoders.blueprint import TwinModel
from crossmodal.encoders.open_clip.weights import fill
from crossmodal.encoders.pixel_tower import PixelTower
from crossmodal.errors import EncoderError


def load_model(
    name: str,
    model_cfg: Mapping[str, Any],
    preprocess_cfg: Mapping[str, Any],
    hf_text_config: Mapping[str, Any] | None,
    weights: Path,
) -> TwinModel:
    """Build a model as ``open_clip.create_model`` does, in float32 and eval mode, with its weights.

    :raises EncoderError: when it cannot be built, or its weights cannot be read or do not fit.
    """
    owner = _build(name, model_cfg, hf_text_config)
    fill(owner, weights)
    set_model_preprocess_cfg(owner, dict(preprocess_cfg))
    owner = owner.float().eval()
    image = PixelTower(Pooled(cast(nn.Module, owner.visual)), *normalisation(preprocess_cfg))
    return TwinModel(owner=owner, image=image.eval(), text=_text_tower(owner).eval())


def normalisation(preprocess_cfg: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """Give mean and deviation of the three channels; a single number holds for all."""

    def channels(value: Any) -> list[float]:
        return list(value) if isinstance(value, list | tuple) else [value] * 3

    return channels(preprocess_cfg["mean"]), channels(preprocess_cfg["std"])


class Pooled(nn.Module):
    """A tower of open_clip; of one that gives its tokens, too, the pooled part."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, inputs: Tensor) -> Tensor:
        """Map what the tower takes to (B, D)."""
        out = self.tower(inputs)
        pooled: Tensor = out[0] if isinstance(out, tuple) else out
        return pooled


class NormalisedText(nn.Module):
    """A text tower whose rows come out L2-normalised."""

    def __init__(self, encode: nn.Module) -> None:
        super().__init__()
        self.encode = encode

    def forward(self, ids: Tensor) -> Tensor:
        """Map token ids (B, T) to (B, D), rows L2-normalised."""
        return functional.normalize(self.encode(ids), dim=-1)


class TextLayers(nn.Module):
    """The layers of open_clip's own text transformer for any length up to its context.

    open_clip's forward adds all positions and the whole mask, and so takes full rows only; here both are cut
    to the row's length. ``owner`` is the model or text tower that holds the layers; they are shared with it.
    """

    attn_mask: Tensor | None

    def __init__(self, owner: Any, pool_type: str, eos_id: int) -> None:
        super().__init__()
        self.token_embedding = owner.token_embedding
        self.positional_embedding = owner.positional_embedding
        self.transformer = owner.transformer
        self.ln_final = owner.ln_final
        self.text_projection = owner.text_projection
        self.pool_type = pool_type
        self.eos_id = eos_id
        self.register_buffer("attn_mask", owner.attn_mask, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Map token ids (B, T) to (B, D)."""
        length = ids.shape[1]
        x = self.token_embedding(ids) + self.positional_embedding[:length]
        mask = None if self.attn_mask is None else self.attn_mask[:length, :length]
        x = self.ln_final(self.transformer(x, attn_mask=mask))
        x = text_global_pool(x, ids, self.pool_type, eos_token_id=self.eos_id)
        if isinstance(self.text_projection, nn.Linear):
            x = self.text_projection(x)
        elif self.text_projection is not None:
            x = x @ self.text_projection
        pooled: Tensor = x
        return pooled


def _text_tower(owner: Any) -> nn.Module:
    if isinstance(owner, CLIP):
        return NormalisedText(TextLayers(owner, owner.text_pool_type, owner.text_eos_id))
    text = owner.text
    if isinstance(text, TextTransformer) and text.cls_emb is None:
        return NormalisedText(TextLayers(text, text.pool_type, text.eos_id))
    return NormalisedText(Pooled(text))  # a Hugging Face model, or CoCa's, which appends a mark of its own


def _build(name: str, model_cfg: Mapping[str, Any], hf_text_config: Mapping[str, Any] | None) -> nn.Module:
    """Instantiate the class that ``open_clip.create_model`` would, without its way of fetching weights."""
    config = deepcopy(dict(model_cfg))
    config["vision_cfg"]["timm_model_pretrained"] = False
    text_cfg = config["text_cfg"]
    custom_text = config.pop("custom_text", False) or hf_text_config is not None
    kind = CLIP if not custom_text else CoCa if "multimodal_cfg" in config else CustomTextCLIP
    try:
        # What is drawn at random is overwritten by the weights, and must not move the caller's generator.
        with _on_disk(hf_text_config) as folder, torch.random.fork_rng(devices=[]):
            if folder is not None:
                text_cfg |= {"hf_model_name": folder, "hf_model_pretrained": False}
            model: nn.Module = kind(**config)
    except Exception as error:  # of any class: unknown keys, odd sizes, no such timm model
        reason = " ".join(str(error).split())
        raise EncoderError(
            f"open_clip cannot build the architecture of {name} ({type(error).__name__}: {reason:.200})"
        ) from error
    return model


@contextmanager
def _on_disk(hf_text_config: Mapping[str, Any] | None) -> Iterator[str | None]:
    """Write the configuration of a Hugging Face text tower to where open_clip can be told to read it."""
    if hf_text_config is None:
        yield None
        return
    with TemporaryDirectory(prefix="crossmodal-") as folder:
        Path(folder, "config.json").write_text(json.dumps(hf_text_config))
        yield folder
