"""What a twin encoder is, apart from what runs it: its parts, and how its model is built in torch."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from crossmodal.encoders.preprocessing import Preprocess

if TYPE_CHECKING:
    from torch import nn


class Tokenize(Protocol):
    """Turns texts into token ids, cut and padded as the text tower's authors do it; any thread may call.

    Where a tower gives a short text the same embedding with padding and without, there is no padding. A tower
    that looks at its padding (``padded``) gets every text at the full ``limit``.
    """

    limit: int
    padded: bool

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Give each text's token ids, at most ``limit``, end marks included.

        :raises EncoderError: when something among them is no text.
        """

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Give how many tokens each text would take if nothing were cut, end marks included."""

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the tokenizer's files into a folder, and give what else it takes to restore it."""


@dataclass(slots=True)
class TwinModel:
    """A twin encoder in torch: to run, to convert, to train and to save.

    ``owner`` is the model as its own library builds it; its state dict is what a checkpoint holds. ``image``
    maps uint8 pixels (B, H, W, 3), and ``text`` int64 token ids (B, T), to (B, D), rows L2-normalised; both
    run the owner's own layers. Where ``owner`` has a ``logit_scale`` it holds the logarithm of the scale.
    """

    owner: "nn.Module"
    image: "nn.Module"
    text: "nn.Module"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blueprint:
    """A twin encoder before anything is built.

    ``name`` is the spec that loads it again. ``family`` names the module that knows such encoders, and
    ``architecture`` is, in plain values for JSON, what that family builds the model from. ``load`` builds the
    model with its weights, in float32 on the CPU, in eval mode.
    """

    name: str
    family: str
    architecture: Mapping[str, Any]
    dim: int
    fingerprint: str
    preprocessing: Preprocess
    tokenizer: Tokenize
    load: Callable[[], TwinModel]


def fingerprint(**facts: object) -> str:
    """Hash the facts that decide what an encoder's embeddings are: sha256, in hexadecimal."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
