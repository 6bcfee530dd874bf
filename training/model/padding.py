"""Texts of several lengths in one batch, with the embeddings that each of them has by itself."""

from dataclasses import dataclass
from inspect import signature

import torch
from torch import Tensor, nn

from crossmodal.encoders.blueprint import Tokenize

CANDIDATES = (0, 1)
"""Ids that text towers may take behind a text without looking at them: 0, or RoBERTa's padding."""

PROBES = ("a", "a small red bird on a branch beside two others")
TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class Padding:
    """How a text tower takes texts of several lengths.

    ``masked``: with a mask. ``id``: filled up with this id, at which it does not look. Neither: those of
    equal length together.
    """

    masked: bool
    id: int | None = None

    def run(self, tower: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
        """Map token ids (B, T) with 0 in ``mask`` behind each text to (B, D)."""
        if self.masked:
            out: Tensor = tower(ids, mask)
        elif self.id is not None:
            out = tower(ids.masked_fill(mask == 0, self.id))
        else:
            out = _by_length(tower, ids, mask)
        return out


@torch.no_grad()
def find_padding(tower: nn.Module, tokenizer: Tokenize) -> Padding:
    """Find out how a text tower takes texts of several lengths; what it looks at is tried, not believed."""
    if len(signature(tower.forward).parameters) > 1:
        return Padding(masked=True)
    if tokenizer.padded:
        return Padding(masked=False, id=0)  # every text comes at full length: nothing is filled up
    short, long = (torch.tensor([ids]) for ids in tokenizer(PROBES))
    alone = tower(short)
    for candidate in CANDIDATES:
        filled = torch.full_like(long, candidate)
        filled[:, : short.shape[1]] = short
        beside = tower(torch.cat([filled, long]))[:1]
        if torch.allclose(alone, beside, atol=TOLERANCE):
            return Padding(masked=False, id=candidate)
    return Padding(masked=False)


def _by_length(tower: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
    lengths = mask.sum(1)
    parts, places = [], []
    for length in sorted(set(lengths.tolist())):
        rows = torch.nonzero(lengths == length).flatten()
        parts.append(tower(ids[rows, :length]))
        places.append(rows)
    order = torch.cat(places).argsort()
    return torch.cat(parts)[order]
