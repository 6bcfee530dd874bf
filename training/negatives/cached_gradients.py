"""Cached gradients: a batch as large as one likes in the memory of a small one, with the same gradient."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

Chunk = Callable[[], Tensor]
"""Embeds a part of the batch: (b, D). It is called twice and must do the same both times, but for chance."""


def cached_step(
    image_chunks: Sequence[Chunk],
    text_chunks: Sequence[Chunk],
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    device: torch.device | None = None,
) -> Tensor:
    """Add the gradient of a whole batch to the parameters, and give its loss, without graph.

    GradCache (Gao et al. 2021, https://arxiv.org/abs/2101.06983): all chunks are embedded without a graph,
    then the loss gives the gradient of the embeddings, then each chunk is embedded again, with the same
    chance, and passes its part of that gradient on. Only one chunk's graph is there at a time.

    Batch norm in train mode is the exception: it sees chunks instead of the batch, each of them twice.

    :param loss: takes all embeddings, (N, D) and (M, D); it may gather, add queues, and use parameters.
    :param device: where chunks run, whose random state is kept beside the CPU's.
    """
    sides = [_Side(chunks, device or torch.device("cpu")) for chunks in (image_chunks, text_chunks)]
    torch.clear_autocast_cache()  # older torch would use weights again that it cast without a graph
    value = loss(*(side.embeddings for side in sides))
    torch.autograd.backward(value)
    for side in sides:
        side.backward()
    return value.detach()


class _Side:
    """The pictures, or the texts, of a batch: embedded once without a graph, and ready to be so again."""

    def __init__(self, chunks: Sequence[Chunk], device: torch.device) -> None:
        self.chunks = chunks
        self.device = device
        self.states: list[list[Tensor]] = []
        parts: list[Tensor] = []
        with torch.no_grad():
            for chunk in chunks:
                self.states.append(_random_state(device))
                parts.append(chunk())
        self.sizes = [len(part) for part in parts]
        self.embeddings = torch.cat(parts).requires_grad_()

    def backward(self) -> None:
        """Embed each chunk again and pass its gradient on; stop where nothing is trained."""
        if self.embeddings.grad is None:
            return
        gradients = torch.split(self.embeddings.grad, self.sizes)
        for chunk, state, gradient in zip(self.chunks, self.states, gradients, strict=True):
            with _chance_again(state, self.device):
                embeddings = chunk()
            if not embeddings.requires_grad:
                return
            torch.autograd.backward(embeddings, gradient)


def _random_state(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    if device.type != "cpu":  # the current device of its kind is the one that this process runs on
        states.append(torch.get_device_module(device).get_rng_state())
    return states


@contextmanager
def _chance_again(states: list[Tensor], device: torch.device) -> Iterator[None]:
    """Draw from a random state that was kept, and go on afterwards from where chance is now."""
    now = _random_state(device)
    _restore(states, device)
    try:
        yield
    finally:
        _restore(now, device)


def _restore(states: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.get_device_module(device).set_rng_state(states[1])
