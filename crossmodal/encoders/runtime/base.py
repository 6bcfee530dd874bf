"""What a tower is to the thing that runs it, and what every runner of towers does."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from crossmodal.encoders.base import Embeddings
from crossmodal.errors import EncoderError
from crossmodal.types import Modality

if TYPE_CHECKING:
    import torch

Inputs = tuple[NDArray[Any], ...]
"""What one call of a tower takes: arrays whose first axis is the batch."""


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One input of a tower: its element type, and its shape with None where it varies."""

    dtype: Literal["uint8", "int64"]
    shape: tuple[int | None, ...]

    def example(self) -> NDArray[Any]:
        """Make the smallest input that shows a converter which axes there are: 2 rows, 8 of anything else."""
        sizes = [size or (8 if axis else 2) for axis, size in enumerate(self.shape)]
        return np.ones(sizes, self.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tower:
    """One tower of an encoder, not yet built.

    ``build`` gives the torch module whose ``forward`` takes ``inputs`` and returns float32 (B, ``dim``), rows
    L2-normalised. ``encoder`` and ``modality`` name it for people, the encoder's ``fingerprint`` for caches.
    """

    encoder: str
    modality: Modality
    fingerprint: str
    dim: int
    inputs: tuple[InputSpec, ...]
    build: "Callable[[], torch.nn.Module]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How the towers of an encoder are run: by which backend, in which arithmetic, how many pictures at once.

    ``batch_size`` is None where the encoder's own, measured default holds.
    """

    backend: str
    dtype: str = "float32"
    batch_size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantisation:
    """What an int8 tower is made of: prepared pictures to calibrate it on, or a folder that holds it already.

    ``fingerprint`` is the whole encoder's, with its arithmetic: it tells one calibration from another.
    """

    fingerprint: str
    pixels: NDArray[np.uint8] | None = None
    kept: Path | None = None


class Runner(ABC):
    """Runs one tower. Nothing is built or loaded before the first call; any thread may call.

    ``most_rows`` is how many rows one call should bring to keep the device busy.
    """

    backend: ClassVar[str]
    dtype: str = "float32"
    device: str = "cpu"
    most_rows: int = 32

    def __init__(self, tower: Tower) -> None:
        self.tower = tower

    @abstractmethod
    def __call__(self, batches: Sequence[Inputs]) -> list[Embeddings]:
        """Run batches, each of its own shape, and give (B, D) for each, in their order."""

    def quantise(self, quantisation: Quantisation) -> None:
        """Take what an int8 tower is made of; a runner in int8 needs it before its first call."""
        raise EncoderError(f"{self.backend} has no int8; use the backend openvino")

    def keep(self, folder: Path) -> None:  # noqa: B027  # most have nothing to keep
        """Write into a folder what could not be made again; most towers can, from their weights.

        :raises OSError: when the disk refuses.
        """
