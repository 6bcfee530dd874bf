"""Towers run by torch: on CUDA, on Apple's GPUs, and on any CPU."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from crossmodal.encoders.base import Embeddings
from crossmodal.encoders.runtime.base import Inputs, Runner, Tower
from crossmodal.encoders.runtime.memory import Rows

MOST_ROWS = {"cpu": 32, "mps": 64, "cuda": 256}
"""Rows that go through a tower at once: past these nothing gets faster and memory grows."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class TorchRunner(Runner):
    """Runs a tower in torch, eagerly; float32 is float32 proper: TensorFloat-32 stays off.

    In float32 the embedding of a row depends on the rows beside it in the last bits only (torch picks kernels
    by the size of the batch): cosine above 0.999999. In bfloat16 and float16 torch's autocast decides what is
    computed in less: convolutions and products of matrices; pixels are scaled, and sums, norms and the
    embedding's length taken, in float32.
    """

    backend = "torch"

    def __init__(self, tower: Tower, device: str = "cpu", dtype: str = "float32") -> None:
        super().__init__(tower)
        self.device = device
        self.dtype = dtype
        self.most_rows = MOST_ROWS[self._kind]
        self.channels_last = tower.modality == "image" and self._kind != "mps"
        self._rows = Rows(self.most_rows, f"the {tower.modality} tower of {tower.encoder}")
        self._module: nn.Module | None = None
        self._building = threading.Lock()

    def __call__(self, batches: Sequence[Inputs]) -> list[Embeddings]:
        """Run batches one after another, in pieces of ``MOST_ROWS``, or of what memory has room for."""
        try:
            module = self._built()
        except (RuntimeError, MemoryError) as error:
            self._rows.fewer(1, error)
            raise
        results = []
        with torch.inference_mode(), _plain_float32(self._kind), self._arithmetic():
            for inputs in batches:
                out = np.empty((len(inputs[0]), self.tower.dim), np.float32)
                start = 0
                while start < len(out):
                    start += self._run_piece(module, inputs, out, start)
                results.append(out)
        return results

    def _run_piece(self, module: nn.Module, inputs: Inputs, out: Embeddings, start: int) -> int:
        """Run rows from ``start`` on and give how many; nought where they were too many for the memory."""
        end = min(start + self._rows.now, len(out))
        try:
            embeddings = module(*(self._to_device(array[start:end]) for array in inputs)).float()
            if self.dtype != "float32":
                embeddings = functional.normalize(embeddings, dim=-1)
            out[start:end] = embeddings.cpu().numpy()
        except (RuntimeError, MemoryError) as error:
            self._rows.fewer(end - start, error)
            if self._kind == "cuda":
                torch.cuda.empty_cache()  # what is cached in pieces of the larger size is of no use now
            return 0
        return end - start

    def _built(self) -> nn.Module:
        """Build the tower at the first call, by whichever thread comes first."""
        with self._building:
            if self._module is None:
                self._module = self._ready(self.tower.build().eval().requires_grad_(False))
            return self._module

    def _ready(self, module: nn.Module) -> nn.Module:
        """Give a tower just built the layout, the arithmetic and the device it runs with."""
        if self.channels_last:
            module = module.to(memory_format=torch.channels_last)
        return lower_weights(module, DTYPES[self.dtype]).to(self.device)

    def _arithmetic(self) -> contextlib.AbstractContextManager[Any]:
        """Give the context in which torch computes in less than float32, where that is wanted."""
        if self.dtype == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self._kind, DTYPES[self.dtype])

    def _to_device(self, array: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    @property
    def _kind(self) -> str:
        return self.device.partition(":")[0]


def lower_weights(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Round once the weights that autocast would round at each call: those of products and convolutions."""
    if dtype != torch.float32:
        for part in module.modules():
            if isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d):
                part.to(dtype)
    return module


@contextlib.contextmanager
def _plain_float32(device: str) -> Iterator[None]:
    """Keep cuDNN's convolutions from rounding to TensorFloat-32, which torch allows by default."""
    if device != "cuda":
        yield
        return
    with torch.backends.cudnn.flags(allow_tf32=False):
        yield
