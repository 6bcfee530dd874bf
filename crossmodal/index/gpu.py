"""Copies of the rows on NVIDIA GPUs, in half precision, that propose candidates."""

import os
from collections.abc import Sequence
from threading import Lock
from typing import Any, Literal, TypeAlias

from crossmodal.errors import IndexingError
from crossmodal.index.base import Ids, Scores, Vectors
from crossmodal.index.forms import Stored
from crossmodal.index.scan import load_faiss

Gpus: TypeAlias = Literal["auto", "none"] | Sequence[int]

# FAISS's GPU kernels sort no more than this.
MAX_CANDIDATES = 2048

# With fewer, 384 wide, two cores answer within 3 to 5 ms; laying out the copy takes 100 ms of the processor,
# before anything has reached a GPU, and again after each change.
ROWS_WORTH_A_COPY = 50_000

_ROWS_AT_A_TIME = 65_536

VARIABLE = "CROSSMODAL_GPUS"


def meant_by_auto() -> Gpus:
    """Give what ``auto`` means here: what the environment says in ``CROSSMODAL_GPUS``, or ``auto`` itself.

    :raises IndexingError: when that is not ``auto``, ``none`` or device numbers.
    """
    said = os.environ.get(VARIABLE, "").strip() or "auto"
    if said == "auto":
        return "auto"
    if said == "none":
        return "none"
    numbers = [part.strip() for part in said.split(",")]
    if not all(number.isdecimal() for number in numbers):
        raise IndexingError(
            f"{VARIABLE} is {said!r}; set it to auto, none, or device numbers such as 0 or 0,1."
        )
    return [int(number) for number in numbers]


def choose_gpus(gpus: Gpus | str) -> list[int]:
    """Give the device numbers to use: all that FAISS sees for ``auto``, none for ``none``.

    :raises IndexingError: when a number is asked for that FAISS does not see.
    """
    seen = int(load_faiss().get_num_gpus())
    if gpus == "auto":
        return list(range(seen))
    if gpus == "none":
        return []
    if isinstance(gpus, str):
        raise IndexingError(f"GPUs are given as {gpus!r}; give 'auto', 'none' or a list of numbers.")
    absent = [number for number in gpus if not 0 <= number < seen]
    if absent:
        raise IndexingError(
            f"GPUs {absent} are asked for, but FAISS sees {seen}. With an NVIDIA GPU, its build is needed:"
            " pip uninstall faiss-cpu, then pip install 'crossmodal-retrieval[gpu]'."
        )
    return list(dict.fromkeys(gpus))


class GpuCopy:
    """A float16 copy of the rows: whole on one GPU, cut into equal shards on several.

    It is made anew at the first search after the rows changed. FAISS's GPU indexes serve one search at a
    time, so searches wait for each other here.
    """

    def __init__(self, devices: Sequence[int]) -> None:
        self.devices = list(devices)
        self._alone = Lock()
        self._version: int | None = None
        self._index: Any = None

    def nearest(self, queries: Vectors, rows: Vectors | Stored, version: int, k: int) -> tuple[Scores, Ids]:
        """Find ``k`` candidates for each query: their rough scores (Q, k) and positions (Q, k).

        ``rows`` (N, D) are copied when ``version`` is not the one copied last.

        :raises RuntimeError: as FAISS does when the GPU refuses, for want of memory above all.
        """
        with self._alone:
            if self._version != version:
                self._copy(rows)
                self._version = version
            scores, positions = self._index.search(queries, k)
        return scores, positions

    def _copy(self, rows: Vectors | Stored) -> None:
        faiss = load_faiss()
        # The old copy goes first: two may not fit.
        self._index, self._version = None, None
        flat = faiss.IndexFlatIP(rows.shape[1])
        for start in range(0, len(rows), _ROWS_AT_A_TIME):
            flat.add(rows[start : start + _ROWS_AT_A_TIME])
        options = faiss.GpuMultipleClonerOptions()
        options.useFloat16 = True
        options.shard = True
        self._index = faiss.index_cpu_to_gpus_list(flat, co=options, gpus=self.devices)
