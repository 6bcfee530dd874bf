"""Requests to a compiled model that run side by side, and no Python in OpenVINO's own threads.

OpenVINO's queue calls back into Python from its threads. A model that is let go while one of them still does
waits for that thread, which waits for the interpreter: forever. So results are fetched here instead.
"""

import contextlib
from collections import deque
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossmodal.encoders.base import Embeddings
from crossmodal.encoders.runtime.silent_openvino import ov

Piece = tuple[list[NDArray[Any]], Embeddings]
"""What one request takes, and the rows that its result goes to."""

WAITING = 2
"""Requests for each that runs, so that one is ready when another is done."""


class Requests:
    """A pool of requests. One thread at a time may use it."""

    def __init__(self, compiled: ov.CompiledModel) -> None:
        count = WAITING * compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        self._idle = deque(compiled.create_infer_request() for _ in range(count))
        self.compiled = compiled

    def run(self, pieces: Iterable[Piece]) -> None:
        """Run all pieces and put their results into place; when one fails, none runs any more.

        :raises RuntimeError: what OpenVINO says of it.
        """
        running: deque[tuple[ov.InferRequest, Embeddings]] = deque()
        try:
            for inputs, out in pieces:
                if not self._idle:
                    self._finish(running)
                request = self._idle.popleft()
                running.append((request, out))
                request.start_async(inputs)
            while running:
                self._finish(running)
        finally:
            for request, _ in running:  # after a failure
                with contextlib.suppress(RuntimeError, MemoryError):
                    request.wait()
                self._idle.append(request)

    def _finish(self, running: "deque[tuple[ov.InferRequest, Embeddings]]") -> None:
        """Wait for the oldest request and fetch its result."""
        request, out = running[0]
        request.wait()
        np.copyto(out, request.get_output_tensor(0).data)
        self._idle.append(running.popleft()[0])
