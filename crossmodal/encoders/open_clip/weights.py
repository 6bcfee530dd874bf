"""Weights as open_clip's users have them, put into its model in the forms that open_clip takes."""

import logging
from pathlib import Path
from typing import Any

import torch
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed
from torch import Tensor, nn

from crossmodal.encoders import weights

State = dict[str, Tensor]

_PARALLEL = "module."
_log = logging.getLogger(__name__)


def fill(model: nn.Module, path: Path) -> None:
    """Put the weights of a file into a model of open_clip.

    :raises EncoderError: when the file cannot be read, or does not fit; the first mismatches are named.
    """
    state = weights.read_weights(path, strip=(_PARALLEL,))
    try:
        state = _in_the_form_of(model, state)
    except Exception as error:  # what cannot be converted does not fit, and in what is told next
        _log.debug("open_clip cannot convert %s: %r", path, error)
    weights.fill(model, state, path)


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
