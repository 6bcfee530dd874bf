"""What happens when memory does not suffice: fewer rows, one line, and the same embeddings."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from crossmodal.encoders.runtime import InputSpec, Tower, memory
from crossmodal.encoders.runtime.memory import Rows, is_out_of_memory
from crossmodal.encoders.runtime.openvino import MOST_ROWS, OpenVinoRunner
from crossmodal.encoders.runtime.torch import TorchRunner
from crossmodal.errors import EncoderError

DIM, SIZE = 4, 8
ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("Exception from src/inference: std::bad_alloc"),
    MemoryError(),
]


class Linear(nn.Module):
    """Pictures to their products with fixed numbers; refuses batches above ``room`` rows."""

    def __init__(self, room, error):
        super().__init__()
        self.project = nn.Linear(SIZE * SIZE * 3, DIM)
        self.room, self.error, self.asked = room, error, []

    def forward(self, pixels):
        self.asked.append(len(pixels))
        if len(pixels) > self.room:
            raise self.error
        return functional.normalize(self.project(pixels.flatten(1).float() / 255), dim=-1)


def tower_of(module):
    inputs = (InputSpec("uint8", (None, SIZE, SIZE, 3)),)
    return Tower(
        encoder="tiny", modality="image", fingerprint="m" * 64, dim=DIM, inputs=inputs, build=lambda: module
    )


@pytest.fixture
def pictures():
    return np.random.default_rng(0).integers(0, 256, (70, SIZE, SIZE, 3), np.uint8)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("room", [1, 5, 31])
def test_torch_halves_goes_on_and_keeps_the_smaller_size(pictures, error, room, caplog):
    module = Linear(10_000, error)
    expected = TorchRunner(tower_of(module))([(pictures,)])[0]
    module.room, module.asked = room, []
    run = TorchRunner(tower_of(module))
    np.testing.assert_allclose(run([(pictures,)])[0], expected, atol=1e-6)
    kept = max(rows for rows in module.asked if rows <= room)
    assert room / 2 < kept <= room
    tries = len(module.asked)
    np.testing.assert_allclose(run([(pictures,)])[0], expected, atol=1e-6)
    assert max(module.asked[tries:]) == kept
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith(
        "Memory did not suffice for 32 rows at once in the image tower of tiny; going on with 16"
    )


def test_where_one_row_is_too_much_the_error_is_one_line(pictures):
    run = TorchRunner(tower_of(Linear(0, RuntimeError("std::bad_alloc\nat ..."))))
    with pytest.raises(EncoderError, match=r"does not fit into the memory .*\(std::bad_alloc\)") as caught:
        run([(pictures,)])
    assert "\n" not in str(caught.value)


def test_a_tower_that_does_not_fit_is_told_in_one_line(pictures):
    def build():
        raise torch.OutOfMemoryError("CUDA out of memory")

    tower = Tower(**{**{n: getattr(tower_of(None), n) for n in Tower.__slots__}, "build": build})
    for runner in (TorchRunner(tower), OpenVinoRunner(tower)):
        with pytest.raises(EncoderError, match="does not fit into the memory"):
            runner([(pictures,)])


def test_any_other_error_stays_what_it_is(pictures):
    for error in (RuntimeError("shapes cannot be multiplied"), ValueError("out of memory")):
        assert not is_out_of_memory(error)
        with pytest.raises(type(error), match=str(error)):
            TorchRunner(tower_of(Linear(0, error)))([(pictures,)])


class Requests:
    """A pool of requests with room for so many rows."""

    def __init__(self, room, copy):
        self.room, self.copy, self.asked = room, copy, []

    def run(self, pieces):
        for inputs, out in pieces:
            self.asked.append(len(out))
            if len(out) > self.room:
                raise RuntimeError("Exception from src/inference/cpp: could not execute: std::bad_alloc")
            self.copy(inputs[0], out)


def test_openvino_halves_too_and_runs_all_again(pictures, caplog):
    expected = pictures[:, 0, 0, :1].astype(np.float32).repeat(DIM, 1)
    run = OpenVinoRunner(tower_of(None))
    run._requests = Requests(3, lambda array, out: np.copyto(out, array[:, 0, 0, :1].repeat(DIM, 1)))
    np.testing.assert_array_equal(run([(pictures,), (pictures[:2],)])[0], expected)
    assert run._rows.now == 2
    np.testing.assert_array_equal(run([(pictures[::-1],)])[0], expected[::-1])
    assert len(caplog.records) == 1
    assert MOST_ROWS in run._requests.asked
    run._requests.room = 0
    with pytest.raises(EncoderError, match="does not fit"):
        run([(pictures,)])


def test_rows_are_only_ever_taken_back():
    rows = Rows(32, "the tower")
    rows.fewer(4, MemoryError())
    rows.fewer(32, MemoryError())  # another thread's batch, begun before
    assert rows.now == 2


GIB = 2**30


@pytest.mark.parametrize(
    ("free", "shape", "expected"),
    [
        (16 * GIB, (224, 224), 256),
        (GIB, (224, 224), GIB // 8 // (5 * 3 * 224 * 224)),
        (GIB, (1024, 1024), 8),
        (1000, (224, 224), 1),
        (None, (224, 224), 256),
    ],
)
def test_the_size_of_a_batch_follows_the_memory_that_is_free(free, shape, expected, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: free)
    assert memory.batch_size(shape, 256) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux tells of its memory")
def test_the_memory_that_is_free_is_a_part_of_all_there_is():
    free = memory.available_memory()
    total = int(next(open("/proc/meminfo")).split()[1]) * 1024  # noqa: PTH123, SIM115
    assert free is not None
    assert 0 < free < total


@pytest.mark.skipif(sys.platform != "linux", reason="bounds a process's memory as Linux does")
def test_a_process_of_bounded_memory_embeds_all_with_smaller_batches():
    script = textwrap.dedent(
        """
        import logging, resource, sys
        import numpy as np, torch
        from torch import nn
        from crossmodal.encoders.runtime import InputSpec, Tower
        from crossmodal.encoders.runtime.torch import TorchRunner

        class Wide(nn.Module):
            def forward(self, pixels):  # 64 MiB a row
                wide = pixels.float().flatten(1)[:, :1].expand(-1, 16 * 2**20) + 1
                return wide[:, :4] / wide[:, :4].norm(dim=1, keepdim=True)

        torch.set_num_threads(1)
        logging.basicConfig(format="%(message)s", stream=sys.stdout)
        inputs = (InputSpec("uint8", (None, 8, 8, 3)),)
        tower = Tower(encoder="wide", modality="image", fingerprint="w", dim=4, inputs=inputs, build=Wide)
        run = TorchRunner(tower)
        pixels = np.zeros((40, 8, 8, 3), np.uint8)
        run([(pixels[:1],)])
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 10 * 64 * 2**20,) * 2)
        out = run([(pixels,)])[0]
        assert np.allclose(out, 0.5), out
        assert 1 <= run._rows.now <= 8, run._rows.now
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Memory did not suffice") == 1
