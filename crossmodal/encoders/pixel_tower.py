"""From uint8 pixels to what an image tower takes: the part of preprocessing that runs inside the tower."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class PixelScale(nn.Module):
    """Scales and normalises pixels, in float32.

    :param mean: of each channel, for pixels between 0 and 1.
    :param std: of each channel, likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            # float32 also where a file has them as whole numbers
            channels = torch.tensor(values, dtype=torch.float32)
            self.register_buffer(name, channels.view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map uint8 pixels (B, H, W, 3) to floats (B, 3, H, W)."""
        return (pixels.permute(0, 3, 1, 2).to(self.mean.dtype) / 255 - self.mean) / self.std


class PixelTower(nn.Module):
    """Scales and normalises pixels, runs ``encode`` and normalises what comes out.

    :param encode: maps floats (B, 3, H, W) to (B, D).
    :param mean: as for ``PixelScale``.
    :param std: likewise.
    """

    def __init__(self, encode: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.scale = PixelScale(mean, std)
        self.encode = encode

    def forward(self, pixels: Tensor) -> Tensor:
        """Map uint8 pixels (B, H, W, 3) to (B, D), rows L2-normalised."""
        scaled = self.scale(pixels)
        embeddings: Tensor = self.encode(scaled)
        return functional.normalize(embeddings.to(scaled.dtype), dim=-1)
