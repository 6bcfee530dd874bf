"""Weights forgotten: each layer drawn again as its library draws it."""

import torch
from torch import nn

_WIDTH = 0.02
"""The standard deviation of embeddings, positions and projections, as in open_clip, timm and transformers."""


@torch.no_grad()
def forget(model: nn.Module) -> None:
    """Draw all weights again from torch's generator, the temperature apart.

    Layers draw themselves as torch has it; parameters that belong to no layer, and embeddings, are normal;
    then models that have a way of their own take it.
    """
    for module in model.modules():
        reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
        if isinstance(module, nn.Embedding):
            module.weight.normal_(std=_WIDTH)
        elif reset is not None:
            reset()
        else:
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.ndim >= 2 or "embed" in name or "token" in name:
                    parameter.normal_(std=_WIDTH)
    for module in model.modules():
        own = getattr(module, "init_parameters", None)  # open_clip's
        if own is not None:
            own()
