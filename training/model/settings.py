"""What of an encoder is trained, and how its parameters move."""

from dataclasses import dataclass, field
from typing import Literal

Tower = Literal["train", "locked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSettings:
    """Low-rank adapters beside the towers' linear layers; there are none where ``rank`` is 0.

    Hu et al. 2021, https://arxiv.org/abs/2106.09685: a layer's change is ``alpha / rank`` times the product
    of two narrow matrices.
    """

    rank: int = 0
    alpha: float = 16.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.rank < 0 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise ValueError(f"rank is 0 or more, alpha above 0 and dropout from 0 to 1, got {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """The encoder that training starts from, and what of it is trained.

    A ``locked`` tower keeps its weights and stays in eval mode; a projection head on top of it is trained all
    the same. ``batch_norm`` = ``frozen`` keeps the statistics of batch norms as they came, which small
    batches and batches in pieces would spoil. ``checkpointing`` computes activations again in the backward
    pass instead of keeping them. ``scratch`` forgets all weights. ``scale`` and ``bias`` are where the
    temperature starts; None: as it came. An encoder that has a bias already keeps both as they came.
    """

    encoder: str = ""
    image: Tower = "train"
    text: Tower = "train"
    batch_norm: Literal["frozen", "train"] = "frozen"
    checkpointing: bool = False
    scratch: bool = False
    scale: float | None = None
    bias: float | None = None
    lora: LoraSettings = field(default_factory=LoraSettings)

    def __post_init__(self) -> None:
        if self.scale is not None and self.scale <= 0:
            raise ValueError(f"scale multiplies scores and is above 0, got {self.scale}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimiserSettings:
    """AdamW, and how its rate goes: up for the share ``warmup`` of all steps, then down along a cosine.

    ``head_lr`` is the rate of projection heads, where it is not ``lr``; ``temperature_lr`` likewise that of
    the temperature. ``layer_decay`` multiplies the rate once for each layer between a parameter and the end
    of its tower. Norms, biases and the temperature have no weight decay. ``clip`` bounds the length of the
    gradient; 0: unbounded.
    """

    lr: float = 1e-5
    head_lr: float | None = None
    temperature_lr: float | None = None
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-6
    layer_decay: float = 1.0
    warmup: float = 0.1
    clip: float = 1.0

    def __post_init__(self) -> None:
        for name in ("lr", "weight_decay", "epsilon", "clip"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is 0 or more, got {getattr(self, name)}")
        for name in ("beta1", "beta2", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is from 0 to below 1, got {getattr(self, name)}")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay is above 0 and at most 1, got {self.layer_decay}")
