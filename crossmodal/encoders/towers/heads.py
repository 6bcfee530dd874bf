"""Projection heads: from a tower's pooled features into the joint space."""

from torch import Tensor, nn


class MlpHead(nn.Module):
    """A projection, a residual layer on top of it, and LayerNorm."""

    def __init__(self, width: int, dim: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.project = nn.Linear(width, dim)
        self.mix = nn.Linear(dim, dim)
        self.drop = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, width) to (B, dim)."""
        projected = self.project(features)
        mixed: Tensor = self.norm(projected + self.drop(self.mix(nn.functional.gelu(projected))))
        return mixed


def make_head(kind: str, width: int, dim: int) -> nn.Module:
    """Make a head from (B, width) to (B, dim): ``linear``, without bias as in CLIP, or ``mlp``."""
    return MlpHead(width, dim) if kind == "mlp" else nn.Linear(width, dim, bias=False)
