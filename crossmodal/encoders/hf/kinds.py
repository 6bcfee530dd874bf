"""Which models of transformers are twin encoders, and what each kind wants that its files do not say."""

from dataclasses import dataclass
from typing import Any

from crossmodal.errors import EncoderError


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What is true of all models of one type.

    ``padded``: their text tower looks at padding, so every text gets the full length. ``text_limit``: the
    length that their processor sets by itself.
    """

    padded: bool = False
    text_limit: int | None = None


KINDS = {
    "align": Kind(text_limit=64),
    "altclip": Kind(),
    "chinese_clip": Kind(),
    "clip": Kind(),
    "clipseg": Kind(),
    "groupvit": Kind(),
    "metaclip_2": Kind(),
    "owlvit": Kind(),
    "siglip": Kind(padded=True),
    "vision-text-dual-encoder": Kind(),
}
"""The kinds known, by the ``model_type`` in their ``config.json``.

All that are not ``padded`` mask padding, or read a text from left to right up to its end mark, so that it has
the same embedding without padding. AIMv2 is left out: in transformers it reads a text from left to right when
another one beside it is padded, and both ways when none is.
"""

_AFTER_PADDING_ID = {"altclip_text_model", "camembert", "roberta", "xlm-roberta", "xlm-roberta-xl"}
"""Text towers that count positions from behind the number of their padding token."""


def kind_of(name: str, model_type: object) -> Kind:
    """Give the kind of a model.

    :param name: the spec it came by, for the message.
    :raises EncoderError: when it is no twin encoder, or one that cannot be run on pictures of one size.
    """
    if model_type == "siglip2":
        raise EncoderError(
            f"{name} is a SigLIP 2 of variable resolution (NaFlex), which no fixed size can be had of; "
            "take one of fixed size, such as hf:google/siglip2-base-patch16-224"
        )
    if not isinstance(model_type, str) or model_type not in KINDS:
        seen = f"a model of type {model_type!r}" if model_type else "a config.json without a model_type"
        raise EncoderError(
            f"{name} is {seen}, which is not known as a twin encoder with get_image_features and "
            f"get_text_features. Types that work: {', '.join(KINDS)}"
        )
    return KINDS[model_type]


def dimensions(architecture: dict[str, Any]) -> int:
    """Give the length of a model's embeddings, from its full configuration."""
    text = architecture["text_config"]
    if architecture["model_type"] == "siglip":
        return int(text["projection_size"])
    return int(architecture["projection_dim"])


def text_positions(architecture: dict[str, Any]) -> int | None:
    """Give how many tokens a model's text tower has positions for, or None where it sets no limit."""
    text = architecture["text_config"]
    positions = text.get("max_position_embeddings")
    if positions is None:
        return None
    if text["model_type"] in _AFTER_PADDING_ID:
        return int(positions) - int(text.get("pad_token_id") or 0) - 1
    return int(positions)
