"""Towers run by torch after ``torch.compile`` has fused their operations, for batches of any size."""

import os

from torch import compile as torch_compile
from torch import nn
from torch._dynamo.exc import BackendCompilerFailed

from crossmodal.encoders.base import Embeddings
from crossmodal.encoders.runtime.base import Inputs
from crossmodal.encoders.runtime.torch import TorchRunner
from crossmodal.errors import EncoderError
from crossmodal.machine import cache_root


class CompiledRunner(TorchRunner):
    """Runs a tower compiled. The first call takes from seconds to a minute, later starts less.

    In float32 it agrees with the eager tower to a cosine of 0.99999. In less, what is fused is rounded once
    where the eager tower rounds at each step, so that embeddings are those of another backend.
    """

    backend = "torch-compile"

    def _ready(self, module: nn.Module) -> nn.Module:
        # In torch's own place, a folder of /tmp, compiled code is lost at the next start of the machine.
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_root() / "inductor"))
        return torch_compile(super()._ready(module), dynamic=True)  # type: ignore[return-value]  # a module

    def _run_piece(self, module: nn.Module, inputs: Inputs, out: Embeddings, start: int) -> int:
        """Run rows as eagerly, and say in one line where this machine cannot compile.

        :raises EncoderError: when it cannot, for want of a compiler as a rule.
        """
        try:
            return super()._run_piece(module, inputs, out, start)
        except BackendCompilerFailed as error:
            raise EncoderError(
                f"torch cannot compile the {self.tower.modality} tower of {self.tower.encoder} here "
                f"({_reason(error)}); install a C++ compiler (g++ or clang), or use the backend torch"
            ) from error


def _reason(error: Exception) -> str:
    """Give the one line among the many of torch's message that tells what was wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "Error" in line or "ompiler" in line), lines[0])[:160]
