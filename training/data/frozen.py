"""One side of a twin encoder that training leaves as it is, run as encoders are run: OpenVINO on a CPU."""

import copy
import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from crossmodal.encoders.base import Embeddings, Pixels
from crossmodal.encoders.blueprint import Blueprint, TwinModel, fingerprint
from crossmodal.encoders.runtime import InputSpec, Runner, Tower, Way, choose_backend, run_tower
from crossmodal.errors import TrainingError
from crossmodal.types import Modality

HEADS = ("head", "pool")
"""What a side calls the parts of it that lie above its tower, and are ours to learn."""


class _Features(nn.Module):
    """A model up to where training begins, as a tower that any runtime takes: (B, ...) to (B, F)."""

    def __init__(self, model: nn.Module, forward: str) -> None:
        super().__init__()
        self.model = model
        self._forward = forward

    def forward(self, inputs: Tensor) -> Tensor:
        features: Tensor = getattr(self.model, self._forward)(inputs)
        return features.flatten(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenSide:
    """What a frozen side makes of its inputs: rows of ``shape``, by a tower that ``identity`` tells apart."""

    identity: str
    shape: tuple[int, ...]
    runner: Runner

    def images(self, pixels: Pixels) -> Embeddings:
        """Map uint8 pixels (B, H, W, 3) to features (B, *shape)."""
        return self.runner([(pixels,)])[0].reshape(-1, *self.shape)

    def texts(self, tokens: Sequence[Sequence[int]]) -> Embeddings:
        """Map the token ids of each text to features (B, *shape); each runs with those of its own length."""
        rows_by_length: dict[int, list[int]] = {}
        for row, ids in enumerate(tokens):
            rows_by_length.setdefault(len(ids), []).append(row)
        batches = [(np.array([tokens[row] for row in rows], np.int64),) for rows in rows_by_length.values()]
        out = np.empty((len(tokens), *self.shape), np.float32)
        for rows, features in zip(rows_by_length.values(), self.runner(batches), strict=True):
            out[rows] = features.reshape(-1, *self.shape)
        return out


def frozen_side(model: TwinModel, blueprint: Blueprint, modality: Modality) -> FrozenSide:
    """Freeze one side of a model.

    Where its owner tells features from their projection (``image_features``), the features are what comes
    out; else it is the embeddings, L2-normalised.

    :raises TrainingError: when what the side makes of a text has a length of its own, which is the case where
        the pooling of texts is learnt.
    """
    side, other = (model.image, model.text) if modality == "image" else (model.text, model.image)
    splits = hasattr(model.owner, f"{modality}_features")
    whole, forward = (model.owner, f"{modality}_features") if splits else (side, "forward")
    height, width = blueprint.preprocessing.shape
    length = blueprint.tokenizer.limit if modality == "text" and blueprint.tokenizer.padded else None
    inputs = (
        InputSpec("int64", (None, length))
        if modality == "text"
        else InputSpec("uint8", (None, height, width, 3))
    )
    shape = _shape(side, getattr(whole, forward), inputs)
    if modality == "text" and len(shape) > 1:
        raise TrainingError(
            f"The text side of {blueprint.name} learns its pooling, so what its tower makes of texts cannot "
            "be kept in one table. Use text_pool=mean or cls, or a recipe that runs the towers"
        )
    architecture = blueprint.architecture
    identity = fingerprint(
        part="features" if splits else "forward",
        weights=_digest(side, without=HEADS if splits else ()),
        architecture=architecture.get(modality, architecture) if splits else architecture,
        preprocessing=blueprint.preprocessing.to_dict() if modality == "image" else None,
    )
    tower = Tower(
        encoder=f"{blueprint.name}, frozen",
        modality=modality,
        fingerprint=identity,
        dim=int(np.prod(shape)),
        inputs=(inputs,),
        build=lambda: _Features(copy.deepcopy(whole, {id(other): None}), forward),  # one side is enough
    )
    way = Way(backend=choose_backend("auto", "float32"))
    return FrozenSide(identity=identity, shape=shape, runner=run_tower(tower, way))


@torch.inference_mode()
def _shape(side: nn.Module, forward: Callable[[Tensor], Tensor], inputs: InputSpec) -> tuple[int, ...]:
    """Ask what is made of one input, while a side is in eval mode."""
    training = side.training
    device = next(side.parameters()).device
    try:
        example = torch.from_numpy(inputs.example()).to(device)
        side.eval()
        return tuple(forward(example).shape[1:])
    finally:
        side.train(training)


def _digest(module: nn.Module, without: Collection[str]) -> str:
    """Digest the weights and statistics of a module, but for some parts of it."""
    digest = hashlib.blake2b(digest_size=32)
    for name, tensor in sorted(module.state_dict().items()):
        if name.partition(".")[0] in without:
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
