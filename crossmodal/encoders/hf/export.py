"""A model written as transformers writes it, with all that its processor needs."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossmodal.encoders.blueprint import Blueprint
from crossmodal.encoders.hf.pixels import ProcessorPixels, build_processor
from crossmodal.encoders.hf.quiet import quiet_transformers

if TYPE_CHECKING:
    from torch import nn


def write_pretrained(owner: "nn.Module", blueprint: Blueprint, folder: Path) -> None:
    """Write a model's configuration and weights, and the settings and files of its processor."""
    folder.mkdir(parents=True, exist_ok=True)
    preprocessing = blueprint.preprocessing
    assert isinstance(preprocessing, ProcessorPixels)  # as every blueprint of this family has
    model: Any = owner
    with quiet_transformers():
        model.save_pretrained(folder)
        build_processor(preprocessing.processor).save_pretrained(folder)
    blueprint.tokenizer.save(folder)
