"""The pairs of all processes in each of them: all pictures meet all texts, and gradients are right."""

from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor


def gather_pairs(accelerator: Accelerator | None, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Give each tensor (n, ...) with the rows of all processes, (sum of n, ...), in the processes' order.

    Processes may have different numbers of rows, even none. Each then computes the loss of the whole batch.
    The gradient of a process's own rows is the sum over what all processes make of them, so parameters
    averaged over processes afterwards (as DDP does) get the gradient of one process with the whole batch.
    """
    if accelerator is None or accelerator.num_processes == 1:
        return tensors
    return tuple(_gathered(tensor.contiguous(), accelerator.num_processes) for tensor in tensors)


def _gathered(tensor: Tensor, processes: int) -> Tensor:
    counts = [torch.zeros(1, dtype=torch.int64, device=tensor.device) for _ in range(processes)]
    dist.all_gather(counts, torch.tensor([len(tensor)], device=tensor.device))
    gathered: Tensor = _Gather.apply(tensor, [int(count) for count in counts])
    return gathered


class _Gather(torch.autograd.Function):
    """Rows of all processes; backwards, the sum of all processes' gradients of one's own rows."""

    @staticmethod
    def forward(context: Any, tensor: Tensor, counts: list[int]) -> Tensor:
        context.start = sum(counts[: dist.get_rank()])
        context.count = len(tensor)
        padded = tensor.new_zeros((max(counts), *tensor.shape[1:]))
        padded[: len(tensor)] = tensor
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        total = gradient.to(torch.promote_types(gradient.dtype, torch.float32), copy=True)
        dist.all_reduce(total)
        return total[context.start : context.start + context.count].to(gradient.dtype), None
