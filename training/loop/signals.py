"""An orderly stop: Ctrl-C and SIGTERM are heard at once, and obeyed between two steps."""

import signal
import threading
from types import FrameType
from typing import Self

import torch
from accelerate import Accelerator

HEARD = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """Training has stopped as a signal, ``number``, asked; ``str(error)`` says what is kept."""

    def __init__(self, kept: str, number: int) -> None:
        super().__init__(kept)
        self.number = number


class Listener:
    """Remembers a signal while a ``with`` lasts; the second one of a kind interrupts at once.

    Outside the main thread, where Python lets no one listen, signals do what they did before.
    """

    def __init__(self) -> None:
        self.heard = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._hear) for number in HEARD}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal() gave, it takes

    def agreed(self, accelerator: Accelerator) -> int:
        """Give the number of the signal that any process has heard, in all of them; 0: none has."""
        if accelerator.num_processes == 1:
            return self.heard
        mine = torch.tensor([self.heard], device=accelerator.device)
        return int(accelerator.gather(mine).max())

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        if self.heard:
            raise KeyboardInterrupt
        self.heard = number
