"""Towers run by torch: on CUDA, on Apple's GPUs, and on any CPU."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from crossmodal.encoders.base import Embeddings
from crossmodal.encoders.runtime.base import Inputs, Runner, Tower

MOST_ROWS = {"cpu": 32, "mps": 64, "cuda": 256}
"""Rows that go through a tower at once: past these nothing gets faster and memory grows."""


class TorchRunner(Runner):
    """Runs a tower in torch, eagerly, in float32 proper: TensorFloat-32 stays off.

    The embedding of a row depends on the rows beside it in the last bits only (torch picks kernels by the
    size of the batch): cosine above 0.999999.
    """

    backend = "torch"

    def __init__(self, tower: Tower, device: str = "cpu") -> None:
        super().__init__(tower)
        self.device = device
        self._module: torch.nn.Module | None = None
        self._building = threading.Lock()

    def __call__(self, batches: Sequence[Inputs]) -> list[Embeddings]:
        """Run batches one after another, in pieces of at most ``MOST_ROWS``."""
        module = self._built()
        rows = MOST_ROWS[self.device]
        results = []
        with torch.inference_mode(), _plain_float32(self.device):
            for inputs in batches:
                out = np.empty((len(inputs[0]), self.tower.dim), np.float32)
                for start in range(0, len(out), rows):
                    piece = [self._to_device(array[start : start + rows]) for array in inputs]
                    out[start : start + rows] = module(*piece).float().cpu().numpy()
                results.append(out)
        return results

    def _built(self) -> torch.nn.Module:
        """Build the tower at the first call, by whichever thread comes first."""
        with self._building:
            if self._module is None:
                module = self.tower.build().eval().requires_grad_(False)
                if self.tower.modality == "image" and self.device != "mps":
                    module = module.to(memory_format=torch.channels_last)
                self._module = module.to(self.device)
            return self._module

    def _to_device(self, array: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


@contextlib.contextmanager
def _plain_float32(device: str) -> Iterator[None]:
    """Keep cuDNN's convolutions from rounding to TensorFloat-32, which torch allows by default."""
    if device != "cuda":
        yield
        return
    with torch.backends.cudnn.flags(allow_tf32=False):
        yield
