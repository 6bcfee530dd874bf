"""Activations computed again in the backward pass, by whatever each library calls it."""

from torch import nn

from crossmodal.errors import TrainingError

_SWITCHES = ("gradient_checkpointing_enable", "set_grad_checkpointing")
"""What turns it on: transformers', then open_clip's and timm's."""


def save_activations(model: nn.Module) -> None:
    """Turn gradient checkpointing on in every part of the towers whose library offers it.

    :raises TrainingError: when none does.
    """
    if not _switched_on(model):
        raise TrainingError(
            "No part of this encoder can compute its activations again; set model.checkpointing to false, "
            "and run.chunk to so many pairs as fit into the memory"
        )


def _switched_on(module: nn.Module) -> int:
    """Turn it on in the outermost modules that can, and count them."""
    for switch in _SWITCHES:
        if hasattr(module, switch):
            try:
                getattr(module, switch)()
            except (ValueError, NotImplementedError, AssertionError):
                continue  # it has the switch in name only; a part of it may have one that works
            return 1
    return sum(_switched_on(child) for child in module.children())
