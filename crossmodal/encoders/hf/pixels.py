"""Pictures become pixels by the image processor that came with a model, up to where the tower takes over."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crossmodal.encoders.base import Pixels
from crossmodal.encoders.preprocessing import MARGIN
from crossmodal.errors import EncoderError
from crossmodal.images import load_image
from crossmodal.types import ImageLike

_LEFT_TO_THE_TOWER = ("do_normalize", "do_rescale", "include_top")
_LONGEST = 8
"""Of a strip longer than this many times its width, only the middle is resized; the rest would be cropped."""


class ProcessorPixels:
    """Runs an image processor of transformers, without what it does to the range of values.

    A JPEG is decoded at a smaller scale only where both its sides stay ``MARGIN`` times as long as they must
    be. The processor, and torch with it, is imported at the first picture.

    :param processor: the processor's settings, its class among them.
    :param shape: height and width of what it gives.
    :param mean: of each channel, for pixels between 0 and 1, as the tower takes it off.
    :param std: of each channel, likewise.
    """

    def __init__(
        self,
        processor: Mapping[str, Any],
        shape: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        self.processor = dict(processor)
        self.shape = shape
        self.mean = list(mean)
        self.std = list(std)
        self._at_least = _at_least(self.processor)
        self._crops = _crops_strips(self.processor)
        self._switches = {name: False for name in _LEFT_TO_THE_TOWER if name in self.processor}
        self._built: Any = None
        self._building = threading.Lock()

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "ProcessorPixels":
        """Restore from what ``to_dict`` gave."""
        height, width = settings["shape"]
        return cls(settings["processor"], (height, width), settings["mean"], settings["std"])

    def to_dict(self) -> dict[str, Any]:
        """Give all that decides the pixels, as plain values for JSON."""
        return {
            "processor": self.processor,
            "shape": list(self.shape),
            "mean": self.mean,
            "std": self.std,
        }

    def __call__(self, image: ImageLike) -> Pixels:
        """Decode and fit one picture: uint8 (H, W, 3)."""
        picture = load_image(image, at_least=self._at_least)
        if self._crops:
            picture = _middle(picture)
        out = self._build()(images=picture, return_tensors="np", **self._switches)["pixel_values"][0]
        return np.ascontiguousarray(out.transpose(1, 2, 0), dtype=np.uint8)

    def _build(self) -> Any:
        with self._building:
            if self._built is None:
                self._built = build_processor(self.processor)
            return self._built


def build_processor(settings: Mapping[str, Any]) -> Any:
    """Build an image processor of transformers from its settings.

    :raises EncoderError: when transformers has none of its class.
    """
    import transformers

    name = settings.get("image_processor_type")
    base: Any = transformers.image_processing_utils.BaseImageProcessor
    found: Any = getattr(transformers, name, None) if isinstance(name, str) else None
    if not (isinstance(found, type) and issubclass(found, base)):
        raise EncoderError(
            f"This transformers ({transformers.__version__}) has no image processor {name!r}; "
            "install the version that wrote the model: pip install -U transformers"
        )
    processor: Any = found
    return processor.from_dict(dict(settings))


def describe_processor(name: str, processor: Any) -> ProcessorPixels:
    """Find out by blank pictures what an image processor gives, and what it does to the range of values.

    :param name: the spec of the model, for messages.
    :raises EncoderError: when its pictures have no fixed size, or it does not just scale and shift values.
    """
    shapes = [_processed(processor, size, 0).shape for size in ((64, 48), (48, 80))]
    if len(set(shapes)) > 1 or len(shapes[0]) != 3 or shapes[0][0] != 3:
        seen = " and ".join(str(shape) for shape in shapes)
        raise EncoderError(
            f"{name} does not bring all pictures to RGB of one size: a wide and a tall one became {seen}. "
            "Give its image processor a fixed height and width, or take a model of fixed size"
        )
    _, height, width = shapes[0]
    low, third, high = (_level(processor, value) for value in (0, 85, 255))
    if not (high > low).all() or not np.allclose(third, low + (high - low) / 3, atol=1e-4, rtol=0):
        raise EncoderError(
            f"{name}: its image processor does more to the values of pixels than scale and shift; "
            "take a model whose processor rescales and normalises"
        )
    std = 1 / (high - low)
    settings = {key: value for key, value in processor.to_dict().items() if not key.startswith("_")}
    return ProcessorPixels(settings, (height, width), (-low * std).tolist(), std.tolist())


def _processed(processor: Any, size: tuple[int, int], value: int) -> NDArray[Any]:
    blank = Image.new("RGB", size, (value, value, value))
    return np.asarray(processor(images=blank, return_tensors="np")["pixel_values"][0])


def _level(processor: Any, value: int) -> NDArray[np.float64]:
    """Give what each channel of a blank picture becomes in its middle, away from any padding."""
    out = _processed(processor, (64, 64), value)
    return out[:, out.shape[1] // 2, out.shape[2] // 2].astype(np.float64)


def _at_least(settings: Mapping[str, Any]) -> int | None:
    """Give how long a JPEG's shorter side must stay, or None where its own size matters."""
    size = settings.get("size") or {}
    if not settings.get("do_resize") or size.get("longest_edge"):
        return None
    edges = [size.get(key) for key in ("shortest_edge", "height", "width")]
    longest = max((edge for edge in edges if edge), default=None)
    return MARGIN * longest if longest else None


def _crops_strips(settings: Mapping[str, Any]) -> bool:
    """Tell whether the shorter side is resized to some length and no more than a square of that is kept."""
    size, crop = settings.get("size") or {}, settings.get("crop_size") or {}
    edge = size.get("shortest_edge")
    if not (settings.get("do_resize") and settings.get("do_center_crop") and edge and crop):
        return False
    return not size.get("longest_edge") and max(crop["height"], crop["width"]) <= edge


def _middle(picture: Image.Image) -> Image.Image:
    """Cut the middle out of a long strip, lest it grow to thousands of times its size only to be cropped."""
    kept = [min(side, _LONGEST * min(picture.size)) for side in picture.size]
    left, top = ((side - keep) // 2 for side, keep in zip(picture.size, kept, strict=True))
    if tuple(kept) == picture.size:
        return picture
    return picture.crop((left, top, left + kept[0], top + kept[1]))
