"""Compiled towers, held against the same towers run eagerly; with real architectures where shapes vary."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from crossmodal.encoders import load_encoder
from crossmodal.encoders.pixel_tower import PixelTower
from crossmodal.encoders.runtime import InputSpec, Tower, Way, choose_backend, run_tower
from crossmodal.encoders.runtime.compiled import CompiledRunner
from crossmodal.encoders.runtime.torch import TorchRunner
from crossmodal.errors import EncoderError

DIM, SIZE, WORDS = 16, 32, 50
ROOM = 5
"""Rows that ``Narrow`` has memory for."""


class Convolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolve = nn.Conv2d(3, 16, 5, stride=3)
        self.norm = nn.BatchNorm2d(16)
        self.project = nn.Linear(16, DIM)

    def forward(self, x):
        return self.project(self.norm(self.convolve(x)).relu().mean((2, 3)))


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(WORDS, 32)
        self.attend = nn.MultiheadAttention(32, 4, batch_first=True)
        self.project = nn.Linear(32, DIM)

    def forward(self, ids):
        x = self.embed(ids)
        x = x + self.attend(x, x, x, need_weights=False)[0]
        return nn.functional.normalize(self.project(x.mean(1)), dim=-1)


@torch.library.custom_op("crossmodal_tests::refuse_many", mutates_args=())
def refuse_many(x: torch.Tensor) -> torch.Tensor:
    """Copy a tensor as a device with room for so many rows would: at run time, inside the compiled code."""
    if len(x) > ROOM:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    return x.clone()


@refuse_many.register_fake
def _(x):
    return torch.empty_like(x)


class Narrow(Convolutions):
    def forward(self, x):
        return super().forward(refuse_many(x))


def tower(body, modality="image"):
    def build():
        torch.manual_seed(7)
        return PixelTower(body(), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)).eval() if images else body().eval()

    images = modality == "image"
    spec = InputSpec("uint8", (None, SIZE, SIZE, 3)) if images else InputSpec("int64", (None, None))
    return Tower(
        encoder="tiny", modality=modality, fingerprint="c" * 64, dim=DIM, inputs=(spec,), build=build
    )


@pytest.fixture(scope="module")
def code_cache(tmp_path_factory):
    """Where torch compiles: one place for all tests, for it begins with headers that take long."""
    return tmp_path_factory.mktemp("inductor")


@pytest.fixture(autouse=True)
def caches(tmp_path, code_cache, monkeypatch):
    """Nothing is found in, or left in, the caches of the person who runs the tests."""
    monkeypatch.setenv("CROSSMODAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(code_cache))
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture
def pictures():
    return np.random.default_rng(0).integers(0, 256, (37, SIZE, SIZE, 3), np.uint8)


def cosines(a, b):
    return (a.astype(np.float64) * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize(("dtype", "least"), [("float32", 0.99999), ("bfloat16", 0.999)])
def test_pictures_get_the_embeddings_of_the_eager_tower_in_any_batch(dtype, least, pictures):
    batches = [(pictures,), (pictures[:1],), (pictures[:0],), (pictures[3:10],)]
    eager = TorchRunner(tower(Convolutions), dtype=dtype)(batches)
    given = run_tower(tower(Convolutions), Way(backend="torch-compile", dtype=dtype))(batches)
    for one, other in zip(given, eager, strict=True):
        assert one.shape == other.shape
        assert (cosines(one, other) > least).all()


def test_texts_of_any_length_get_the_embeddings_of_the_eager_tower_from_two_compilations():
    rng = np.random.default_rng(1)
    sizes = [(40, 7), (17, 20), (2, 64), (5, 3), (9, 11), (1, 5), (1, 9)]
    batches = [(rng.integers(0, WORDS, size),) for size in sizes]
    eager = TorchRunner(tower(Words, "text"))(batches)
    torch._dynamo.utils.counters.clear()
    for one, other in zip(CompiledRunner(tower(Words, "text"))(batches), eager, strict=True):
        assert (cosines(one, other) > 0.99999).all()
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs == 2, "one for many rows, and one for a single row"


def test_code_is_compiled_and_kept_in_the_cache_of_this_library(tmp_path, monkeypatch, pictures):
    class Unseen(Convolutions):  # what this process has compiled before is not written again
        def forward(self, x):
            return super().forward(x).tanh()

    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    CompiledRunner(tower(Unseen))([(pictures,)])
    assert any((tmp_path / "cache" / "inductor").rglob("*.so"))


def test_out_of_memory_halves_the_rows_and_goes_on(pictures, caplog):
    plain = TorchRunner(tower(Convolutions))([(pictures,)])[0]
    run = CompiledRunner(tower(Narrow))
    assert (cosines(run([(pictures,)])[0], plain) > 0.99999).all()
    assert run._rows.now == 4
    [line] = [r.getMessage() for r in caplog.records if "Memory did not suffice" in r.getMessage()]
    assert line.endswith("going on with 16, or fewer if need be")


def test_several_devices_compile_one_copy_each_and_keep_the_order(pictures, monkeypatch):
    from crossmodal.encoders import runtime

    monkeypatch.setattr(runtime, "devices", lambda: ["cpu", "cpu"])
    plain = TorchRunner(tower(Convolutions))([(pictures,)])[0]
    run = run_tower(tower(Convolutions), Way(backend="torch-compile"))
    assert run.backend == "torch-compile"
    assert (cosines(run([(pictures,)])[0], plain) > 0.99999).all()


def test_float32_shares_a_fingerprint_with_eager_torch_and_bfloat16_does_not():
    for dtype, shared in [("float32", True), ("bfloat16", False)]:
        ours, eager = (load_encoder("lite", backend=b, dtype=dtype).card for b in ("torch-compile", "torch"))
        assert (ours.fingerprint == eager.fingerprint) == shared
        assert ours.backend == "torch-compile"


def test_nobody_gets_it_unasked_and_int8_is_refused():
    assert choose_backend("auto") != "torch-compile"
    with pytest.raises(EncoderError, match="torch-compile cannot compute in int8"):
        choose_backend("torch-compile", "int8")


WITHOUT_COMPILER = """
import numpy as np
from torch import nn
from crossmodal.encoders.runtime import InputSpec, Tower
from crossmodal.encoders.runtime.compiled import CompiledRunner
from crossmodal.errors import EncoderError

class Waves(nn.Module):
    def forward(self, ids):
        return ids.float().cos()

spec = InputSpec("int64", (None, 4))
tower = Tower(encoder="tiny", modality="text", fingerprint="w", dim=4, inputs=(spec,), build=Waves)
try:
    CompiledRunner(tower)([(np.ones((3, 4), np.int64),)])
except EncoderError as error:
    print(error)
"""


def test_without_a_compiler_one_line_says_what_to_do(tmp_path):
    without = {**os.environ, "CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "empty")}
    told = subprocess.run(
        [sys.executable, "-c", WITHOUT_COMPILER], env=without, capture_output=True, text=True, check=True
    ).stdout
    assert told.startswith("torch cannot compile the text tower of tiny here (")
    assert told.endswith("; install a C++ compiler (g++ or clang), or use the backend torch\n")
    assert len(told.splitlines()) == 1
