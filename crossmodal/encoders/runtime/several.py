"""A tower on several devices at once: each has its own copy, and rows are dealt out among them."""

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from crossmodal.encoders.base import Embeddings
from crossmodal.encoders.runtime.base import Inputs, Runner, Tower

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows of one batch, and the rows of the result that are theirs."""

    inputs: Inputs
    out: Embeddings


class SeveralRunners(Runner):
    """One runner for each device, each in a thread of its own; who is done first takes the next piece.

    :param make: gives the runner of a tower on a device.
    """

    def __init__(self, tower: Tower, make: Callable[[Tower, str], Runner], devices: Sequence[str]) -> None:
        super().__init__(tower)
        one_by_one = replace(tower, build=_one_by_one(tower.build))
        self._runners = [make(one_by_one, device) for device in devices]
        self._pool = ThreadPoolExecutor(len(devices), thread_name_prefix="device")
        self.backend = self._runners[0].backend  # type: ignore[misc]  # of all: one kind of runner
        self.dtype = self._runners[0].dtype
        self.device = ", ".join(devices)
        self.most_rows = sum(runner.most_rows for runner in self._runners)

    def __call__(self, batches: Sequence[Inputs]) -> list[Embeddings]:
        """Deal batches out in pieces, and give (B, D) for each batch, in their order."""
        results = [np.empty((len(inputs[0]), self.tower.dim), np.float32) for inputs in batches]
        pieces = self._cut(batches, results)
        turn = count()  # whose next() is one step, whichever thread asks
        failed = threading.Event()

        def work(runner: Runner) -> None:
            while not failed.is_set() and (number := next(turn)) < len(pieces):
                try:
                    pieces[number].out[:] = runner([pieces[number].inputs])[0]
                except BaseException:
                    failed.set()
                    raise

        for future in [self._pool.submit(work, runner) for runner in self._runners]:
            future.result()
        return results

    def _cut(self, batches: Sequence[Inputs], results: Sequence[Embeddings]) -> list[_Piece]:
        """Cut batches so that every device has some, and none more at once than it can take."""
        share = math.ceil(sum(map(len, results)) / len(self._runners))
        rows = max(1, min(share, *(runner.most_rows for runner in self._runners)))
        return [
            _Piece(tuple(array[start : start + rows] for array in inputs), out[start : start + rows])
            for inputs, out in zip(batches, results, strict=True)
            for start in range(0, len(out), rows)
        ]


def _one_by_one(build: "Callable[[], torch.nn.Module]") -> "Callable[[], torch.nn.Module]":
    """Let one thread at a time build a tower: the libraries that do it keep state of the whole process."""
    turn = threading.Lock()

    def build_in_turn() -> "torch.nn.Module":
        with turn:
            return build()

    return build_in_turn
