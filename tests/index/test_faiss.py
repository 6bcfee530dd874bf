"""What FaissIndex promises beside its answers: threads, GPUs, and a clear word where FAISS is missing."""

import logging
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event

import faiss
import numpy as np
import pytest

from crossmodal.errors import IndexingError, MissingPackageError
from crossmodal.index import FaissIndex
from crossmodal.index import faiss as faiss_index
from crossmodal.index.faiss import half_precision_error, rounding_error

Make = Callable[..., np.ndarray]
BruteForce = Callable[..., tuple[np.ndarray, np.ndarray]]


def test_a_missing_faiss_names_both_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingPackageError) as raised:
        FaissIndex(4)
    assert "pip install 'crossmodal-retrieval[cpu]'" in str(raised.value)
    assert "pip install 'crossmodal-retrieval[gpu]'" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("dim", [1, 2, 16, 384, 2048])
def test_sums_in_single_precision_stay_within_the_stated_error(unit_vectors: Make, dim: int) -> None:
    rng = np.random.default_rng(dim)
    vectors, queries = unit_vectors(rng, 500, dim), unit_vectors(rng, 30, dim)
    exact = np.einsum("qd,nd->qn", queries.astype(np.float64), vectors.astype(np.float64))
    one_by_one = np.zeros_like(exact, dtype=np.float32)
    for d in range(dim):
        one_by_one += queries[:, d, None] * vectors[None, :, d]
    seen = faiss.knn(queries, vectors, 500, metric=faiss.METRIC_INNER_PRODUCT)
    bound = rounding_error(dim)
    assert np.abs(one_by_one - exact.astype(np.float32)).max() <= bound
    assert np.abs(seen[0] - np.take_along_axis(exact, seen[1], axis=1).astype(np.float32)).max() <= bound


@pytest.mark.parametrize("dim", [1, 2, 16, 384, 2048])
def test_half_precision_stays_within_the_stated_error(unit_vectors: Make, dim: int) -> None:
    rng = np.random.default_rng(dim)
    vectors, queries = unit_vectors(rng, 500, dim), unit_vectors(rng, 30, dim)
    rough = queries.astype(np.float16).astype(np.float32) @ vectors.astype(np.float16).astype(np.float32).T
    exact = queries.astype(np.float64) @ vectors.astype(np.float64).T
    assert np.abs(rough - exact).max() <= half_precision_error(dim)


def answers_during(index: FaissIndex, queries: np.ndarray, change: Callable[[], None]) -> list:
    """Search in four threads from before ``change`` until after it; give all answers."""
    begun, done = Barrier(5), Event()

    def search() -> list:
        answers = [index.search(queries, 5)]
        begun.wait()
        while not done.is_set():
            answers.append(index.search(queries, 5))
        return [*answers, index.search(queries, 5)]

    with ThreadPoolExecutor(4) as pool:
        searches = [pool.submit(search) for _ in range(4)]
        try:
            begun.wait()
            change()
        finally:
            done.set()
        return [answer for task in searches for answer in task.result()]


def assert_each_is_one_of(answers: list, states: list) -> None:
    for scores, ids in answers:
        assert any(np.array_equal(ids, s[1]) and np.array_equal(scores, s[0]) for s in states)


def test_searches_beside_a_replacing_thread_see_old_or_new_and_never_a_mixture(
    unit_vectors: Make, brute_force: BruteForce
) -> None:
    rng = np.random.default_rng(0)
    ids, queries = rng.permutation(3000), unit_vectors(rng, 2, 24)
    turns = [unit_vectors(rng, 3000, 24) for _ in range(30)]
    index = FaissIndex(24, gpus="none")
    index.add(ids, turns[0])

    def change() -> None:
        for vectors in turns[1:]:
            index.add(ids, vectors)

    states = [brute_force(ids, vectors, queries, 5) for vectors in turns]
    assert_each_is_one_of(answers_during(index, queries, change), states)


def test_searches_beside_a_thread_that_adds_and_removes_see_whole_batches(
    unit_vectors: Make, brute_force: BruteForce
) -> None:
    rng = np.random.default_rng(1)
    ids, vectors = rng.permutation(4000), unit_vectors(rng, 4000, 24)
    queries = unit_vectors(rng, 2, 24)
    index = FaissIndex(24, gpus="none")
    index.add(ids[:3000], vectors[:3000])

    def change() -> None:
        for _ in range(30):
            index.add(ids[3000:], vectors[3000:])
            index.remove(ids[3000:])

    states = [brute_force(ids[:n], vectors[:n], queries, 5) for n in (3000, 4000)]
    assert_each_is_one_of(answers_during(index, queries, change), states)


def test_gpus_hold_half_precision_shards_made_anew_after_a_change(
    fake_gpus: list[dict], unit_vectors: Make, brute_force: BruteForce
) -> None:
    rng = np.random.default_rng(2)
    vectors, query = unit_vectors(rng, 5000, 32), unit_vectors(rng, 1, 32)
    index = FaissIndex(32)
    index.add(np.arange(4000), vectors[:4000])
    assert fake_gpus == []
    for _ in range(2):
        index.search(query, 10)
    index.add(np.arange(4000, 5000), vectors[4000:])
    index.remove([17])
    index.remove([17])
    kept = np.delete(np.arange(5000), 17)
    seen = index.search(query, 10)
    np.testing.assert_array_equal(seen, brute_force(kept, vectors[kept], query, 10))
    made = {"float16": True, "shard": True, "gpus": [0, 1]}
    assert fake_gpus == [{"rows": 4000, **made}, {"rows": 4999, **made}]
    assert index.describe()["device"] == "gpu 0, 1 (float16)"


def test_rows_that_half_precision_cannot_tell_apart_still_come_in_their_true_order(
    fake_gpus: list[dict], unit_vectors: Make, brute_force: BruteForce
) -> None:
    rng = np.random.default_rng(6)
    near = unit_vectors(rng, 1, 32).astype(np.float64) + 1e-5 * rng.standard_normal((3000, 32))
    vectors = (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)
    queries = unit_vectors(rng, 20, 32)
    index = FaissIndex(32)
    index.add(np.arange(3000), vectors)
    expected = brute_force(np.arange(3000), vectors, queries, 10)
    np.testing.assert_array_equal(index.search(queries, 10), expected)


def test_searches_the_gpu_cannot_do_run_on_the_cpu(fake_gpus: list[dict], unit_vectors: Make) -> None:
    rng = np.random.default_rng(3)
    index = FaissIndex(8, gpus=[1])
    index.add(np.arange(3000), unit_vectors(rng, 3000, 8))
    index.search(unit_vectors(rng, 1, 8), 10, np.arange(1000))
    index.search(unit_vectors(rng, 1, 8), 1000)
    assert fake_gpus == []
    index.search(unit_vectors(rng, 1, 8), 10)
    assert [copy["gpus"] for copy in fake_gpus] == [[1]]
    assert index.describe()["filtered_device"] == "cpu"


def test_few_rows_are_searched_where_they_are_and_many_on_the_gpus(
    fake_gpus: list[dict], monkeypatch: pytest.MonkeyPatch, unit_vectors: Make, brute_force: BruteForce
) -> None:
    monkeypatch.setattr(faiss_index, "ROWS_WORTH_A_COPY", 3000)
    rng = np.random.default_rng(8)
    vectors, query = unit_vectors(rng, 3000, 8), unit_vectors(rng, 1, 8)
    index = FaissIndex(8)
    index.add(np.arange(2999), vectors[:2999])
    assert index.describe()["device"] == "cpu"
    np.testing.assert_array_equal(
        index.search(query, 10), brute_force(np.arange(2999), vectors[:2999], query, 10)
    )
    assert fake_gpus == []
    index.add([2999], vectors[2999:])
    assert index.describe()["device"] == "gpu 0, 1 (float16)"
    np.testing.assert_array_equal(index.search(query, 10), brute_force(np.arange(3000), vectors, query, 10))
    assert [copy["rows"] for copy in fake_gpus] == [3000]


@pytest.mark.parametrize(
    ("said", "device"),
    [
        ("", "gpu 0, 1 (float16)"),
        ("auto", "gpu 0, 1 (float16)"),
        ("none", "cpu"),
        ("0", "gpu 0 (float16)"),
        (" 1, 0", "gpu 1, 0 (float16)"),
    ],
)
def test_the_environment_says_which_gpus_auto_means(
    fake_gpus: list[dict], monkeypatch: pytest.MonkeyPatch, said: str, device: str
) -> None:
    monkeypatch.setenv("CROSSMODAL_GPUS", said)
    assert FaissIndex(4).describe()["device"] == device
    assert FaissIndex(4, gpus=[1]).describe()["device"] == "gpu 1 (float16)"
    assert FaissIndex(4, gpus="none").describe()["device"] == "cpu"


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("all", r"CROSSMODAL_GPUS is 'all'; set it to auto, none, or device numbers such as 0 or 0,1\."),
        ("0,", r"CROSSMODAL_GPUS is '0,'"),
        ("-1", r"CROSSMODAL_GPUS is '-1'"),
        ("0,7", r"GPUs \[7\] are asked for, but FAISS sees 2"),
    ],
)
def test_an_environment_that_names_no_gpu_is_refused(
    fake_gpus: list[dict], monkeypatch: pytest.MonkeyPatch, said: str, message: str
) -> None:
    monkeypatch.setenv("CROSSMODAL_GPUS", said)
    with pytest.raises(IndexingError, match=message):
        FaissIndex(4)


def out_of_memory(*_: object, **__: object) -> None:
    raise RuntimeError("StandardGpuResources: alloc fail")


def test_a_full_gpu_is_left_with_a_warning_when_it_was_chosen_by_itself(
    fake_gpus: list[dict],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    unit_vectors: Make,
    brute_force: BruteForce,
) -> None:
    monkeypatch.setattr(faiss, "index_cpu_to_gpus_list", out_of_memory)
    rng = np.random.default_rng(4)
    vectors, query = unit_vectors(rng, 2000, 8), unit_vectors(rng, 1, 8)
    index = FaissIndex(8)
    index.add(np.arange(2000), vectors)
    with caplog.at_level(logging.WARNING):
        seen = index.search(query, 10)
    np.testing.assert_array_equal(seen, brute_force(np.arange(2000), vectors, query, 10))
    assert "goes on without GPUs [0, 1]: StandardGpuResources: alloc fail" in caplog.text
    assert index.describe()["device"] == "cpu"


def test_a_full_gpu_is_an_error_when_it_was_asked_for(
    fake_gpus: list[dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faiss, "index_cpu_to_gpus_list", out_of_memory)
    index = FaissIndex(2, gpus=[0])
    index.add([0, 1], np.eye(2))
    with pytest.raises(
        IndexingError, match=r"cannot be searched on GPUs \[0\]: .*alloc fail; give other GPUs"
    ):
        index.search(np.eye(2), 1)


@pytest.mark.parametrize(
    ("gpus", "message"),
    [([0, 2], r"GPUs \[2\] are asked for, but FAISS sees 2"), ("all", "given as 'all'; give 'auto'")],
)
def test_gpus_that_are_not_there_are_refused(fake_gpus: list[dict], gpus: object, message: str) -> None:
    with pytest.raises(IndexingError, match=message):
        FaissIndex(4, gpus=gpus)


@pytest.mark.gpu
def test_a_real_gpu_answers_as_brute_force_does(unit_vectors: Make, brute_force: BruteForce) -> None:
    if not faiss.get_num_gpus():
        pytest.skip("FAISS sees no NVIDIA GPU here")
    rng = np.random.default_rng(5)
    vectors, queries = unit_vectors(rng, 50_000, 256), unit_vectors(rng, 16, 256)
    index = FaissIndex(256)
    index.add(np.arange(len(vectors)), vectors)
    seen = index.search(queries, 10)
    np.testing.assert_array_equal(seen, brute_force(np.arange(len(vectors)), vectors, queries, 10))
    assert index.describe()["device"].startswith("gpu 0")
