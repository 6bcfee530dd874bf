"""Weights as open_clip's users have them, read without running any code, and put into its model."""

import logging
import pickle
from pathlib import Path
from typing import Any

import torch
from open_clip.convert import convert_state_dict  # type: ignore[import-untyped]  # it ships no types
from open_clip.model import (  # type: ignore[import-untyped]  # it ships no types
    convert_to_custom_text_state_dict,
    resize_pos_embed,
    resize_text_pos_embed,
)
from torch import Tensor, nn

from crossmodal.errors import EncoderError

State = dict[str, Tensor]

_PARALLEL = "module."
_LISTED = 3
_log = logging.getLogger(__name__)


def fill(model: nn.Module, weights: Path) -> None:
    """Put the weights of a file into a model of open_clip, in the forms that open_clip takes.

    :raises EncoderError: when the file cannot be read, or does not fit; the first mismatches are named.
    """
    state = read_state(weights)
    try:
        state = _in_the_form_of(model, state)
    except Exception as error:  # what cannot be converted does not fit, and in what is told next
        _log.debug("open_clip cannot convert %s: %r", weights, error)
    wrong = _mismatches(model, state)
    if wrong:
        raise EncoderError(f"{weights} does not fit its configuration: {'; '.join(wrong)}")
    model.load_state_dict(state)


def read_state(path: Path) -> State:
    """Read the tensors of a safetensors file, or of one that torch can read without running code.

    :raises EncoderError: when it is torn, or is no file of weights, or wants code.
    """
    try:
        held: Any = _read(path)
    except pickle.UnpicklingError as error:
        raise _wants_code(path) from error
    except MemoryError:
        raise
    except Exception as error:  # of any class: both readers stumble over torn files in many ways
        reason = " ".join(str(error).split()) or type(error).__name__
        if "TorchScript" in reason:
            raise _wants_code(path) from error
        raise EncoderError(f"{path} is torn or no file of weights ({reason:.120}); fetch it again") from error
    if isinstance(held, dict) and isinstance(held.get("state_dict"), dict):
        held = held["state_dict"]  # beside an optimiser's state and the like
    if not isinstance(held, dict) or not held or not all(isinstance(v, Tensor) for v in held.values()):
        raise EncoderError(f"{path} holds no state dict; expected tensors by name")
    if all(name.startswith(_PARALLEL) for name in held):
        held = {name.removeprefix(_PARALLEL): tensor for name, tensor in held.items()}
    return dict(held)


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _wants_code(path: Path) -> EncoderError:
    return EncoderError(
        f"{path} cannot be read without running code that it holds; where it is trusted, save its state "
        "dict as .safetensors"
    )


def _in_the_form_of(model: Any, state: State) -> State:
    """Bring a state dict to the model's form, step by step as ``open_clip.load_checkpoint`` does."""
    state = convert_state_dict(model, state)
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    for name in ("logit_scale", "logit_bias"):
        own = getattr(model, name)
        if name in state and own is not None and own.numel() == state[name].numel():
            state[name] = state[name].reshape(own.shape)
    if "logit_bias" not in state and model.logit_bias is not None:
        state["logit_bias"] = torch.zeros_like(state["logit_scale"])
    state.pop("text.transformer.embeddings.position_ids", None)  # written by transformers before 4.31
    resize_pos_embed(state, model)
    resize_text_pos_embed(state, model)
    return state


def _mismatches(model: nn.Module, state: State) -> list[str]:
    """Say what is missing, what is too much and what has another shape, the first few of each by name."""
    own = model.state_dict()
    both = [name for name in own if name in state]
    shapes = [
        f"{name} {tuple(state[name].shape)}, expected {tuple(own[name].shape)}"
        for name in both
        if state[name].shape != own[name].shape
    ]
    groups = {
        "missing": [name for name in own if name not in state],
        "unexpected": [name for name in state if name not in own],
        "of another shape": shapes,
    }
    return [
        f"{len(names)} {what} ({'; '.join(names[:_LISTED])}{'; ...' if len(names) > _LISTED else ''})"
        for what, names in groups.items()
        if names
    ]
