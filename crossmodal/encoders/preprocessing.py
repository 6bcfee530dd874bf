"""How a picture becomes the pixels that an image tower was trained on."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from crossmodal.encoders.base import Pixels
from crossmodal.images import fit_image, load_image
from crossmodal.types import ImageLike

MARGIN = 4
"""So many times longer than needed a JPEG stays, decoded at a smaller scale, where pixels must be exact:
ViT-B/32 then gives a cosine above 0.99999 to the whole file's embedding; at 2 it was 0.9999."""


class Preprocess(Protocol):
    """Decodes and fits one picture; may be called from several threads."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of what it gives."""

    def __call__(self, image: ImageLike) -> Pixels:
        """Give uint8 (H, W, 3); mean and deviation are the tower's affair.

        :raises ImageError: when it is no picture, is broken or is too large.
        """

    def to_dict(self) -> dict[str, Any]:
        """Give all that decides the pixels, as plain values for JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """A square by crop, pad or squash, as ``fit_image`` makes it.

    With ``exact``, a JPEG is decoded at a smaller scale only where both its sides stay ``MARGIN`` times as
    long as they must be, so that resizing still decides every pixel; without, wherever they stay long enough.
    """

    size: int
    fit: Literal["crop", "pad", "squash"]
    resample: Literal["bicubic", "bilinear"]
    crop_fraction: float = 1.0
    fill: tuple[int, int, int] = (255, 255, 255)
    exact: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of what it gives."""
        return self.size, self.size

    def __call__(self, image: ImageLike) -> Pixels:
        """Decode and fit one picture: uint8 (size, size, 3)."""
        needed = math.ceil(self.size / self.crop_fraction)
        decoded = load_image(image, at_least=MARGIN * needed if self.exact else needed)
        return fit_image(decoded, self.size, self.fit, self.resample, self.crop_fraction, self.fill)

    def to_dict(self) -> dict[str, Any]:
        """Give all that decides the pixels, as plain values for JSON."""
        return asdict(self)
