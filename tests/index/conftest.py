"""Brute force, vectors that are hard to order, and every index to be tried on them."""

from collections.abc import Callable
from types import SimpleNamespace

import faiss
import numpy as np
import pytest

from crossmodal.index import STORAGES, ExactIndex, FaissIndex, Index, Storage, scan
from crossmodal.index import faiss as faiss_index


def no_gpu() -> str | None:
    return None if faiss.get_num_gpus() else "FAISS sees no NVIDIA GPU here"


class HalfPrecisionIndex:
    """What FAISS makes of a flat index on a GPU: rows and queries in float16, at most 2,048 hits."""

    def __init__(self, flat: faiss.IndexFlatIP) -> None:
        self.rows = flat.reconstruct_n(0, flat.ntotal).astype(np.float16).astype(np.float64)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        assert queries.dtype == np.float32
        assert 1 <= k <= 2048
        scores = queries.astype(np.float16).astype(np.float64) @ self.rows.T
        # Later rows first among equals: an order that nobody should rely on.
        order = np.lexsort((-np.broadcast_to(np.arange(scores.shape[1]), scores.shape), -scores))[:, :k]
        return np.take_along_axis(scores, order, axis=1).astype(np.float32), order


@pytest.fixture
def fake_gpus(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """Two GPUs that FAISS believes in, used for any number of rows; gives the list of copies made on them."""
    copies = []
    monkeypatch.delenv("CROSSMODAL_GPUS", raising=False)
    monkeypatch.setattr(faiss_index, "ROWS_WORTH_A_COPY", 0)

    def clone(flat: faiss.IndexFlatIP, co: SimpleNamespace, gpus: list[int]) -> HalfPrecisionIndex:
        copies.append({"rows": flat.ntotal, "float16": co.useFloat16, "shard": co.shard, "gpus": gpus})
        return HalfPrecisionIndex(flat)

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 2)
    monkeypatch.setattr(faiss, "GpuMultipleClonerOptions", SimpleNamespace, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpus_list", clone)
    return copies


@pytest.fixture
def storage(request: pytest.FixtureRequest) -> Storage:
    """The form in which the index of this test keeps its vectors."""
    callspec = getattr(request.node, "callspec", None)
    kind = callspec.params.get("make_index", "") if callspec else ""
    return next((name for name in STORAGES if name in kind), "float32")


def as_kept(vectors: np.ndarray, storage: Storage) -> np.ndarray:
    """What is left of each vector, apart from the code under test."""
    if storage == "float16":
        return vectors.astype(np.float16).astype(np.float32)
    if storage in ("int8", "binary"):
        largest = np.float32(127) / np.max(np.abs(vectors.astype(np.float32)), axis=1, initial=1e-9)
        codes = np.round(vectors.astype(np.float32) * largest[:, None])
        lengths = np.sqrt((codes.astype(np.float64) ** 2).sum(axis=1))
        return codes.astype(np.float32) * (1 / lengths).astype(np.float32)[:, None]
    return vectors


@pytest.fixture(
    params=[
        "exact",
        "faiss",
        "faiss-sliced",
        "faiss-float16-sliced",
        "faiss-int8-sliced",
        "faiss-int8-fake-gpu",
        "faiss-fake-gpu",
        pytest.param("faiss-gpu", marks=pytest.mark.gpu),
    ]
)
def make_index(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, storage: Storage
) -> Callable[[int], Index]:
    """Make an index of one kind, given its dimensions."""
    if request.param == "exact":
        return ExactIndex
    if request.param.endswith("fake-gpu"):
        request.getfixturevalue("fake_gpus")
        return lambda dim: FaissIndex(dim, storage=storage)
    if request.param == "faiss-gpu":
        if reason := no_gpu():
            pytest.skip(reason)
        monkeypatch.setattr(faiss_index, "ROWS_WORTH_A_COPY", 0)
        return FaissIndex
    if request.param.endswith("sliced"):
        monkeypatch.setattr(scan, "_MIN_ROWS_PER_SLICE", 7)
        monkeypatch.setattr(scan, "_MIN_ROWS_PER_BLOCK", 3)
        monkeypatch.setattr(scan, "_BLOCK_BYTES", 2048)
        monkeypatch.setattr(scan, "_cores", lambda: 4)
    return lambda dim: FaissIndex(dim, gpus="none", storage=storage)


Searched = tuple[np.ndarray, np.ndarray]


@pytest.fixture
def brute_force(storage: Storage) -> Callable[..., Searched]:
    """Search by scoring everything that is kept in float64, one loop and one sort for each query."""

    def search(
        ids: np.ndarray, vectors: np.ndarray, queries: np.ndarray, k: int, allowed: np.ndarray | None = None
    ) -> Searched:
        scores = np.full((len(queries), k), -np.inf, np.float32)
        found = np.full((len(queries), k), -1, np.int64)
        wanted = set(ids.tolist() if allowed is None else allowed.tolist())
        pass_filter = np.array([i in wanted for i in ids.tolist()], bool)
        ids, vectors = ids[pass_filter], as_kept(vectors[pass_filter], storage)
        for q, query in enumerate(queries):
            exact = np.einsum("nd,d->n", vectors.astype(np.float64), query.astype(np.float64))
            rounded = exact.astype(np.float32)
            order = np.lexsort((ids, -rounded))[:k]
            scores[q, : len(order)], found[q, : len(order)] = rounded[order], ids[order]
        return scores, found

    return search


def random_vectors(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    vectors = rng.standard_normal((n, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def tied_vectors(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    """Signs over a power of four: inner products are exact, and few."""
    width = 4 if dim < 16 else 16
    vectors = np.zeros((n, dim), np.float32)
    vectors[:, :width] = rng.choice([-1, 1], (n, width)) / np.sqrt(width)
    return vectors


def duplicate_vectors(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    """A few vectors many times over, some of them a last digit apart."""
    vectors = random_vectors(rng, max(1, n // 50), dim)[rng.integers(0, max(1, n // 50), n)]
    nudged = rng.random(n) < 0.3
    vectors[nudged] = np.nextafter(vectors[nudged], np.float32(1))
    return vectors


@pytest.fixture(params=[random_vectors, tied_vectors, duplicate_vectors], ids=lambda make: make.__name__)
def make_vectors(request: pytest.FixtureRequest) -> Callable[..., np.ndarray]:
    """Make L2-normalised vectors: ``make_vectors(rng, n, dim)``."""
    return request.param


@pytest.fixture
def unit_vectors() -> Callable[..., np.ndarray]:
    """Make random L2-normalised vectors: ``unit_vectors(rng, n, dim)``."""
    return random_vectors
