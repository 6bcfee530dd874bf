"""From a row of features, patches or tokens, to one."""

import math

import torch
from torch import Tensor, nn

POSITION_WIDTH = 32
HIDDEN_WIDTH = 32
TEMPERATURE = 0.1


def reduce(kind: str, features: Tensor, mask: Tensor | None = None) -> Tensor:
    """Pool (B, N, C) to (B, C) where nothing is learnt: ``cls`` or ``mean``; else give them as they are.

    :param mask: (B, N), 1 where there is a feature and 0 where there is padding behind; None: no padding.
    """
    if kind == "cls":
        return features[:, 0]
    if kind == "mean":
        if mask is None:
            return features.mean(1)
        weights = mask.unsqueeze(-1).to(features.dtype)
        return (features * weights).sum(1) / weights.sum(1).clamp(min=1)
    return features


class GeneralisedPooling(nn.Module):
    """Sorts each channel from its largest value down, and weights the ranks by what was learnt.

    The weights come from a bidirectional GRU over the encoded ranks, so that any number of features will do;
    the mean and the maximum are two of the poolings it can learn. GPO of Chen, Hu, Wu, Jiang and Wang,
    "Learning the Best Pooling Strategy for Visual Semantic Embedding", CVPR 2021,
    https://arxiv.org/abs/2011.04305.

    :param fixed: whether there are always as many features, as there are patches of a picture.
    """

    def __init__(self, *, fixed: bool = False) -> None:
        super().__init__()
        self.fixed = fixed
        self.gru = nn.GRU(POSITION_WIDTH, HIDDEN_WIDTH, batch_first=True, bidirectional=True)
        self.score = nn.Linear(HIDDEN_WIDTH, 1, bias=False)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pool features (B, N, C) to (B, C); where ``mask`` (B, N) is 0 there is padding behind them."""
        if mask is None:
            ranked = features.sort(dim=1, descending=True).values
            return (ranked * self.weights(features)).sum(1)
        there = mask.bool().unsqueeze(-1)
        lowest = torch.finfo(features.dtype).min
        ranked = features.masked_fill(~there, lowest).sort(dim=1, descending=True).values
        return (ranked.masked_fill(~there, 0) * self._weights_by_length(features, mask)).sum(1)

    def weights(self, features: Tensor) -> Tensor:
        """Give the weights of the ranks of as many features as (B, N, C) holds: (1, N, 1), their sum 1."""
        positions = encode_positions(torch.arange(features.shape[1], device=features.device))
        states = self.gru(positions.to(features.dtype).unsqueeze(0))[0]
        both = (states[..., :HIDDEN_WIDTH] + states[..., HIDDEN_WIDTH:]) / 2
        weights = torch.softmax(self.score(both) / TEMPERATURE, dim=1)
        if self.fixed and torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]  # untyped in torch
            # Constants in the converted tower: where a GRU's whole input is constant, OpenVINO 2026.4 gives
            # other weights when it is compiled for several requests at once.
            return torch.tensor(weights.tolist(), dtype=weights.dtype)
        return weights

    def _weights_by_length(self, features: Tensor, mask: Tensor) -> Tensor:
        """Give each row the weights of its own number of features: (B, N, 1), 0 behind them."""
        lengths = mask.sum(1)
        out = features.new_zeros(len(features), features.shape[1], 1)
        for length in sorted(set(lengths.tolist())):
            if length:
                weights = self.weights(features[:1, :length])
                padded = nn.functional.pad(weights, (0, 0, 0, features.shape[1] - length))
                out = torch.where((lengths == length).view(-1, 1, 1), padded, out)
        return out


def encode_positions(positions: Tensor) -> Tensor:
    """Encode positions (N,) as sines and cosines, by turns: (N, POSITION_WIDTH).

    Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.5.
    """
    steps = torch.arange(0, POSITION_WIDTH, 2, device=positions.device)
    angles = positions.float().unsqueeze(1) * torch.exp(steps * (-math.log(10000.0) / POSITION_WIDTH))
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)
