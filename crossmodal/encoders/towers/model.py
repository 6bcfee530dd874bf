"""The twin in torch: two towers, each under a pooling and a projection head, and the temperature.

What a tower gives before anything of ours is learnt (``image_features``, ``text_features``) is apart from
what is made of it (``project_image``, ``project_text``): with the towers frozen, features are computed once
and heads are trained on them.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from crossmodal.encoders.pixel_tower import PixelScale
from crossmodal.encoders.towers.heads import make_head
from crossmodal.encoders.towers.pooling import GeneralisedPooling, reduce
from crossmodal.errors import EncoderError

INITIAL_TEMPERATURE = 0.07
"""Radford et al. 2021, https://arxiv.org/abs/2103.00020, section 2.5."""


class ImageSide(nn.Module):
    """A timm model without its classifier, a pooling and a head.

    :param pool: ``native``, as the model itself pools; ``cls``, its class token; ``mean`` or ``generalised``,
        over its patches.
    :param mean: of each channel, for pixels between 0 and 1; ``std`` likewise.
    """

    tower: Any

    def __init__(self, tower: nn.Module, pool: str, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.tower = tower
        self.kind = pool
        self.pool = GeneralisedPooling(fixed=True) if pool == "generalised" else None
        self.head: nn.Module = nn.Identity()
        self.scale = PixelScale(mean, std)
        if pool == "cls" and getattr(tower, "cls_token", None) is None:
            raise EncoderError(
                f"{type(tower).__name__} has no class token to pool by; "
                "use image_pool=native, mean or generalised"
            )

    def features(self, pixels: Tensor) -> Tensor:
        """Map uint8 pixels (B, H, W, 3) to features (B, C), or (B, N, C) where the pooling is learnt."""
        images = self.scale(pixels)
        if self.kind == "native":
            pooled: Tensor = self.tower(images)
            return pooled
        return reduce(self.kind, self._patches(self.tower.forward_features(images)))

    def project(self, features: Tensor) -> Tensor:
        """Map features to embeddings (B, D), rows L2-normalised."""
        if self.pool is not None:
            features = self.pool(features)
        return functional.normalize(self.head(features), dim=-1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map uint8 pixels (B, H, W, 3) to embeddings (B, D), rows L2-normalised."""
        return self.project(self.features(pixels))

    def _patches(self, features: Tensor) -> Tensor:
        """Bring a map, channels first or last, or tokens to (B, N, C), the class token only for ``cls``."""
        if features.dim() == 4:
            last = features.shape[1] != self.tower.num_features
            return features.flatten(1, 2) if last else features.flatten(2).transpose(1, 2)
        return features if self.kind == "cls" else features[:, getattr(self.tower, "num_prefix_tokens", 0) :]


class TextSide(nn.Module):
    """A text model of transformers, a pooling (``cls``, ``mean`` or ``generalised``) and a head."""

    def __init__(self, tower: nn.Module, pool: str) -> None:
        super().__init__()
        self.tower = tower
        self.kind = pool
        self.pool = GeneralisedPooling() if pool == "generalised" else None
        self.head: nn.Module = nn.Identity()

    def features(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map int64 ids (B, T) to features (B, C), or (B, T, C) where the pooling is learnt.

        :param mask: (B, T), 0 where there is padding behind the text; None: no padding.
        """
        seen = torch.ones_like(ids) if mask is None else mask  # without one, some towers cannot be converted
        states = self.tower(input_ids=ids, attention_mask=seen).last_hidden_state
        return reduce(self.kind, states, mask)

    def project(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map features, with the same mask, to embeddings (B, D), rows L2-normalised."""
        if self.pool is not None:
            features = self.pool(features, mask)
        return functional.normalize(self.head(features), dim=-1)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map int64 ids (B, T), and a mask where they are padded, to embeddings (B, D), L2-normalised."""
        return self.project(self.features(ids, mask), mask)


class TwinTowers(nn.Module):
    """Both sides, and the temperature: ``logit_scale`` is a logarithm, ``logit_bias`` None until set."""

    logit_bias: nn.Parameter | None

    def __init__(self, image: ImageSide, text: TextSide) -> None:
        super().__init__()
        self.image = image
        self.text = text
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / INITIAL_TEMPERATURE)))
        self.register_parameter("logit_bias", None)

    def image_features(self, pixels: Tensor) -> Tensor:
        """Give what the image tower makes of uint8 pixels (B, H, W, 3); see ``ImageSide.features``."""
        return self.image.features(pixels)

    def project_image(self, features: Tensor) -> Tensor:
        """Map features of pictures to embeddings (B, D), rows L2-normalised."""
        return self.image.project(features)

    def text_features(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Give what the text tower makes of int64 ids (B, T); see ``TextSide.features``."""
        return self.text.features(ids, mask)

    def project_text(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map features of texts to embeddings (B, D), rows L2-normalised."""
        return self.text.project(features, mask)


def join(
    image_tower: nn.Module, text_tower: Any, architecture: Mapping[str, Any], seed: int = 0
) -> TwinTowers:
    """Join two towers by poolings and heads that start from ``seed``, whatever was drawn at random before."""
    facts = architecture["image"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        image = ImageSide(image_tower, facts["pool"], facts["mean"], facts["std"])
        text = TextSide(text_tower, architecture["text"]["pool"])
        widths = _image_width(image, facts["size"]), int(text_tower.config.hidden_size)
        for side, width in zip((image, text), widths, strict=True):
            side.head = make_head(architecture["head"], width, architecture["dim"])
        return TwinTowers(image, text).eval()


@torch.inference_mode()
def _image_width(image: ImageSide, size: Sequence[int]) -> int:
    """Ask the tower how many channels its features have: timm's attributes do not know every pooling."""
    return int(image.eval().features(torch.zeros((1, *size, 3), dtype=torch.uint8)).shape[-1])
