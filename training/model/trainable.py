"""A twin encoder under training: what is trained of it, and what it makes of a batch."""

import math
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from crossmodal.encoders.blueprint import Blueprint, TwinModel
from crossmodal.errors import TrainingError
from training.data.frozen import HEADS
from training.losses import Temperature
from training.model.checkpointing import save_activations
from training.model.lora import add_adapters, merged
from training.model.padding import Padding, find_padding
from training.model.scratch import forget
from training.model.settings import ModelSettings


class Trainable(nn.Module):
    """A twin encoder with its trained parts in train mode, and what is locked in eval mode.

    ``owner`` is the model as its library has it, ``image`` and ``text`` its towers of the same layers. Where
    the owner has no temperature of its own, or no bias that was asked for, it lives here.
    """

    def __init__(self, twin: TwinModel, settings: ModelSettings, padding: Padding) -> None:
        super().__init__()
        self.owner = twin.owner
        self.image = twin.image
        self.text = twin.text
        self.settings = settings
        self.padding = padding
        biased = isinstance(getattr(twin.owner, "logit_bias", None), nn.Parameter)
        self.logit_scale = _parameter(twin.owner, "logit_scale", math.log(1 / 0.07))
        self.logit_bias = _parameter(twin.owner, "logit_bias", settings.bias)
        if settings.scale is not None and isinstance(self.logit_scale, nn.Parameter) and not biased:
            nn.init.constant_(self.logit_scale, math.log(settings.scale))
        if not biased and hasattr(twin.owner, "project_image") and hasattr(twin.owner, "logit_bias"):
            twin.owner.logit_bias = self.logit_bias  # the checkpoints of these may hold one
        self._lock()

    @property
    def temperature(self) -> Temperature:
        """Give what a loss multiplies scores by, and adds to them."""
        assert self.logit_scale is not None
        return Temperature(scale=self.logit_scale.exp(), bias=self.logit_bias)

    @property
    def splits(self) -> bool:
        """Whether both towers stay as they are, and what they give, pooled, goes into heads of ours."""
        locked = self.settings.image == self.settings.text == "locked" and not self.settings.lora.rank
        pooled = not any(
            isinstance(getattr(side, "pool", None), nn.Module) for side in (self.image, self.text)
        )
        return locked and pooled and hasattr(self.owner, "project_image")

    def encode(self, images: Tensor, texts: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Give the embeddings (N, D) and (M, D) of pixels and token ids; without a mask, of features."""
        if mask is None:
            return self.project_images(images), self.project_texts(texts)
        return self.encode_images(images), self.encode_texts(texts, mask)

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Map uint8 pixels (B, H, W, 3) to embeddings (B, D), rows L2-normalised."""
        return cast(Tensor, self.image(pixels))

    def encode_texts(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Map token ids (B, T) with 0 in ``mask`` behind each text to embeddings (B, D), L2-normalised."""
        return self.padding.run(self.text, ids, mask)

    def project_images(self, features: Tensor) -> Tensor:
        """Map features of pictures to embeddings (B, D), L2-normalised."""
        return cast(Tensor, cast(Any, self.owner).project_image(features))

    def project_texts(self, features: Tensor) -> Tensor:
        """Map features of texts to embeddings (B, D), L2-normalised."""
        return cast(Tensor, cast(Any, self.owner).project_text(features))

    def clamp(self, most: float) -> None:
        """Keep the scale of scores at ``most`` or below."""
        with torch.no_grad():
            self.logit_scale.clamp_(max=math.log(most))

    def train(self, mode: bool = True) -> "Trainable":
        """Bring what is trained into train mode; what is locked stays in eval mode."""
        super().train(mode)
        if mode:
            for module in self._resting():
                module.training = False  # of this module alone: a head may lie inside
        return self

    def trained(self) -> dict[str, nn.Parameter]:
        """Give the parameters that training changes, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def state(self) -> dict[str, Tensor]:
        """Give all that training changes: trained parameters, and statistics of batch norms in training."""
        found: dict[str, Tensor] = {name: p.detach() for name, p in self.trained().items()}
        for name, module in self.named_modules():
            if isinstance(module, _BatchNorm) and module.training:
                found |= {f"{name}.{key}": buffer for key, buffer in module.named_buffers(recurse=False)}
        return found

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take back what ``state`` gave.

        :raises TrainingError: when it is of another model.
        """
        there = self.state()
        if there.keys() != state.keys() or any(there[name].shape != state[name].shape for name in there):
            raise TrainingError(
                f"The state is of another model: it has {len(state)} tensors, and {len(there)} are trained "
                "here; resume with the recipe it was begun with"
            )
        with torch.no_grad():
            for name, tensor in there.items():
                tensor.copy_(state[name])

    def twin(self) -> TwinModel:
        """Give the ordinary twin encoder that this has become, adapters merged into their layers."""
        return TwinModel(owner=merged(self.owner), image=self.image, text=self.text)

    def heads(self) -> list[nn.Module]:
        """Give the parts above the towers that are ours to learn."""
        found = (getattr(side, name, None) for side in (self.image, self.text) for name in HEADS)
        return [part for part in found if isinstance(part, nn.Module)]

    def _lock(self) -> None:
        """Settle which parameters are trained."""
        head_parameters = {id(p) for head in self.heads() for p in head.parameters()}
        if self.settings.lora.rank:
            self.requires_grad_(False)
            add_adapters(self, self.settings.lora)
            for parameter in self.parameters():
                if id(parameter) in head_parameters:
                    parameter.requires_grad_(True)
        for side, choice in ((self.image, self.settings.image), (self.text, self.settings.text)):
            if choice == "locked":
                for parameter in side.parameters():
                    parameter.requires_grad_(id(parameter) in head_parameters)
        for parameter in (self.logit_scale, self.logit_bias):
            if parameter is not None:
                parameter.requires_grad_(True)

    def _resting(self) -> Iterator[nn.Module]:
        """Give what stays in eval mode: locked towers, and batch norms that are not to move."""
        heads = {id(module) for head in self.heads() for module in head.modules()}
        for side, choice in ((self.image, self.settings.image), (self.text, self.settings.text)):
            for module in side.modules():
                norm = isinstance(module, _BatchNorm) and self.settings.batch_norm == "frozen"
                if norm or (choice == "locked" and id(module) not in heads):
                    yield module


def make_trainable(blueprint: Blueprint, settings: ModelSettings) -> Trainable:
    """Load the model of a blueprint, in train mode on the CPU, with what the settings say of it.

    :raises EncoderError: when it cannot be loaded.
    :raises TrainingError: when nothing of it would be trained, or its library cannot do what is asked.
    :raises MissingPackageError: when adapters are asked for and peft is not installed.
    """
    twin = blueprint.load()
    padding = find_padding(twin.text, blueprint.tokenizer)
    if settings.scratch:
        forget(twin.owner)
    model = Trainable(twin, settings, padding)
    if settings.checkpointing:
        save_activations(model)
    temperature = {id(model.logit_scale), id(model.logit_bias)}
    if all(id(parameter) in temperature for parameter in model.trained().values()):
        raise TrainingError(
            f"Nothing of {blueprint.name} would be trained: its towers are locked and it has no heads of "
            "ours; set model.image or model.text to train, or model.lora.rank to 8"
        )
    return model.train()


def _parameter(owner: nn.Module, name: str, initial: float | None) -> Any:
    """Give the owner's parameter of this name, or a new one where it has none and there is a value for it."""
    found = getattr(owner, name, None)
    if isinstance(found, nn.Parameter):
        return found
    return None if initial is None else nn.Parameter(torch.tensor(float(initial)))
