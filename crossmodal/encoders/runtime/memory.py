"""How much goes through a tower at once: by the memory that is there, and less once it did not suffice."""

import logging
import threading
from pathlib import Path

from crossmodal.errors import EncoderError

COPIES = 5
"""Batches of prepared pictures that exist at most: two ahead, one in hand, one stacked, one to spare."""

SHARE = 8
"""One part in so many of the memory that is free is what prepared pictures may take."""

_SIGNS = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "failed to allocate",
    "bad_alloc",
    "bad allocation",
)
"""How torch's allocators, OpenVINO and the C++ library under both say it, in small letters."""

_log = logging.getLogger(__name__)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory did not suffice; libraries raise RuntimeError for that, too."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


class Rows:
    """How many rows go through a tower at once: half as many from each time that memory did not suffice.

    :param most: where it starts.
    :param tower: what people call the tower.
    """

    def __init__(self, most: int, tower: str) -> None:
        self.now = most
        self._tower = tower
        self._told = False
        self._changing = threading.Lock()

    def fewer(self, tried: int, error: BaseException) -> None:
        """Take back ``now`` after ``tried`` rows were too many, and say so the first time.

        :raises EncoderError: when a single row was too much.
        :raises BaseException: ``error`` itself, where it is about anything but memory.
        """
        if not is_out_of_memory(error):
            raise error
        if tried <= 1:
            raise EncoderError(
                f"{self._tower} does not fit into the memory that is free, not even for one row at a time "
                f"({_first_line(error)}); close other programs, or take a smaller encoder or dtype"
            ) from error
        with self._changing:
            self.now = min(self.now, tried // 2)
            if not self._told:
                self._told = True
                _log.warning(
                    "Memory did not suffice for %d rows at once in %s; going on with %d, or fewer if need be",
                    *(tried, self._tower, self.now),
                )


def batch_size(shape: tuple[int, int], most: int) -> int:
    """Give how many prepared pictures a batch may hold: as many as keep a tower busy, if memory has room.

    :param shape: height and width of a prepared picture; uint8, three channels.
    :param most: rows that keep the tower busy; more gain nothing.
    """
    free = available_memory()
    if free is None:
        return most
    return max(1, min(most, free // SHARE // (COPIES * 3 * shape[0] * shape[1])))


def available_memory() -> int | None:
    """Give the bytes this process may still take, container quota heeded; None where nothing tells."""
    rooms = [room for room in (_of_the_machine(), _of_the_container()) if room is not None]
    return max(min(rooms), 0) if rooms else None


def _of_the_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):  # not Linux
        return None


def _of_the_container() -> int | None:
    group = Path("/sys/fs/cgroup")
    try:
        return int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
    except (OSError, ValueError):  # no control groups here, or "max": no quota
        return None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__
