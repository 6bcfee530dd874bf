"""The small forms of vectors: what is kept of a number, what memory it takes, and what bits may miss."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from crossmodal.errors import IndexingError
from crossmodal.index import STORAGES, FaissIndex, Storage, scan
from crossmodal.index.faiss import _LEAST_OVERSAMPLED, rounding_error
from crossmodal.index.forms import Stored, form_of
from crossmodal.index.rows import Rows, Tailed
from crossmodal.index.saved import read_rows

Make = Callable[..., np.ndarray]


def clustered(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    """Vectors around a few hundred centres, as embeddings are; always the same centres."""
    centres = np.random.default_rng(0).standard_normal((200, dim))
    vectors = centres[rng.integers(0, 200, n)] + 0.8 * rng.standard_normal((n, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def decoded(storage: Storage, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    count, dim = arrays[form_of(storage).read - 1].shape
    return form_of(storage).decode(arrays, np.empty((count, dim), np.float32))


def test_every_finite_half_is_read_as_numpy_reads_it() -> None:
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    read = decoded("float16", (halves.reshape(-1, 8),))
    np.testing.assert_array_equal(read.ravel().view(np.uint32), halves.astype(np.float32).view(np.uint32))


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("dim", [1, 7, 384])
def test_what_was_read_is_written_back_the_same(make_vectors: Make, storage: Storage, dim: int) -> None:
    form = form_of(storage)
    vectors = make_vectors(np.random.default_rng(dim), 500, max(dim, 4))[:, :dim]
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    once = form.encode(vectors)
    for a, b, part in zip(once, form.encode(decoded(storage, once)), form.parts(dim), strict=True):
        assert a.shape == (500, part.width)
        assert a.dtype == part.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("storage", ["float16", "int8"])
@pytest.mark.parametrize("dim", [1, 2, 16, 384, 2048])
@pytest.mark.parametrize("q", [3, 30])
def test_sums_over_decoded_rows_stay_within_the_stated_error(
    unit_vectors: Make, storage: Storage, dim: int, q: int
) -> None:
    """Also where the factor of a row is applied to its score and not to its numbers."""
    rng = np.random.default_rng(dim)
    vectors, queries = unit_vectors(rng, 500, dim), unit_vectors(rng, q, dim)
    arrays = form_of(storage).encode(vectors)
    scores, found = scan.nearest(queries, Stored(form_of(storage), arrays, 500, dim), 500)
    exact = queries.astype(np.float64) @ decoded(storage, arrays).astype(np.float64).T
    exact = np.take_along_axis(exact, found, axis=1).astype(np.float32)
    assert np.sort(found).tolist() == [list(range(500))] * q
    assert np.abs(scores - exact).max() <= rounding_error(dim)


@pytest.mark.parametrize(("storage", "least"), [("float16", 0.999), ("int8", 0.9999), ("binary", 0.9999)])
def test_what_is_kept_is_near_what_came_and_of_length_one(
    unit_vectors: Make, storage: Storage, least: float
) -> None:
    vectors = unit_vectors(np.random.default_rng(0), 500, 384)
    kept = decoded(storage, form_of(storage).encode(vectors))
    assert (kept * vectors).sum(axis=1).min() > least
    np.testing.assert_allclose(np.linalg.norm(kept, axis=1), 1, atol=1e-6 if storage != "float16" else 5e-4)


@pytest.mark.parametrize(("storage", "share"), [("float16", 1 / 2), ("int8", 1 / 4), ("binary", 1 / 32)])
def test_memory_shrinks_by_what_each_form_promises(
    unit_vectors: Make, storage: Storage, share: float
) -> None:
    index = FaissIndex(384, gpus="none", storage=storage)
    index.add(np.arange(1000), unit_vectors(np.random.default_rng(0), 1000, 384))
    facts = index.describe()
    assert facts["storage"] == storage
    assert facts["bytes_per_vector"] == pytest.approx(4 * 384 * share, rel=0.02)
    searched = [array for array in index._rows._arrays if not isinstance(array, Tailed)]
    assert sum(a.nbytes for a in searched) == 1000 * facts["bytes_per_vector"]


def test_an_unknown_form_is_refused_with_those_known() -> None:
    with pytest.raises(IndexingError, match=r"Unknown storage 'int4'\. Did you mean 'int8'"):
        FaissIndex(4, storage="int4")


@pytest.mark.parametrize("allowed_share", [None, 0.5, 0.01])
def test_bits_find_most_of_the_best_and_score_them_exactly(
    brute_force: Callable[..., tuple], allowed_share: float | None
) -> None:
    rng = np.random.default_rng(1)
    vectors, queries = clustered(rng, 5000, 128), clustered(rng, 40, 128)
    queries[:20] = vectors[:20]
    ids = rng.permutation(9000)[:5000]
    allowed = None if allowed_share is None else rng.choice(ids, int(allowed_share * 5000), replace=False)
    index = FaissIndex(128, gpus="none", storage="binary")
    index.add(ids, vectors)
    scores, found = index.search(queries, 10, allowed)
    kept = decoded("binary", form_of("binary").encode(vectors))
    _, true_ids = brute_force(ids, kept, queries, 10, allowed)
    recall = np.mean(
        [len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), true_ids.tolist(), strict=True)]
    )
    assert recall > (0.9 if allowed_share != 0.01 else 0.999)
    for q in range(len(queries)):
        of_found = brute_force(ids, kept, queries[q : q + 1], 10, found[q])
        np.testing.assert_array_equal(found[q], of_found[1][0])
        np.testing.assert_array_equal(scores[q], of_found[0][0])
    if allowed is None:
        assert found[:20, 0].tolist() == ids[:20].tolist()
    else:
        assert np.isin(found, allowed).all()


def test_bits_of_few_rows_are_not_trusted_at_all(
    unit_vectors: Make, brute_force: Callable[..., tuple]
) -> None:
    rng = np.random.default_rng(2)
    vectors, queries = unit_vectors(rng, _LEAST_OVERSAMPLED, 9), unit_vectors(rng, 5, 9)
    index = FaissIndex(9, gpus="none", storage="binary")
    index.add(np.arange(len(vectors)), vectors)
    expected = brute_force(
        np.arange(len(vectors)), decoded("binary", form_of("binary").encode(vectors)), queries, 10
    )
    np.testing.assert_array_equal(index.search(queries, 10), expected)


def test_bits_give_the_same_answer_alone_and_among_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine bits have many ties at the border of what is scored again."""
    monkeypatch.setattr(scan, "_MIN_BITS_PER_SLICE", 300)
    rng = np.random.default_rng(3)
    index = FaissIndex(9, gpus="none", storage="binary")
    index.add(np.arange(4000), clustered(rng, 4000, 9))
    queries = clustered(rng, 30, 9)
    together = index.search(queries, 10)
    for q in range(len(queries)):
        alone = index.search(queries[q : q + 1], 10)
        np.testing.assert_array_equal(alone[0][0], together[0][q])
        np.testing.assert_array_equal(alone[1][0], together[1][q])


@pytest.mark.parametrize("storage", STORAGES)
def test_what_was_saved_answers_the_same_and_goes_on_changing(
    tmp_path: Path, unit_vectors: Make, storage: Storage
) -> None:
    """The one that was read is changed in its file, past its end, and made smaller; so is one never saved."""
    rng = np.random.default_rng(4)
    vectors, queries = unit_vectors(rng, 900, 33), unit_vectors(rng, 6, 33)
    whole = FaissIndex(33, gpus="none", storage=storage)
    whole.add(np.arange(300), vectors[:300])
    whole.save(tmp_path / "a", {"is": "one"})
    back, stamp = FaissIndex.load(tmp_path / "a", gpus="none")
    assert (back.storage, back.dim, stamp) == (storage, 33, {"is": "one"})
    before = (tmp_path / "a").read_bytes()
    for index in (whole, back):
        index.add(np.arange(200, 800), vectors[100:700])
        index.remove(np.arange(0, 700, 3))
        index.add(np.arange(5), vectors[895:])
    np.testing.assert_array_equal(whole.search(queries, 20), back.search(queries, 20))
    assert (tmp_path / "a").read_bytes() == before
    back.save(tmp_path / "b", {})
    again, _ = FaissIndex.load(tmp_path / "b", gpus="none")
    np.testing.assert_array_equal(whole.search(queries, 20), again.search(queries, 20))


@pytest.mark.parametrize("storage", ["float16", "int8", "binary"])
def test_the_file_of_a_small_form_is_plain_safetensors(tmp_path: Path, storage: Storage) -> None:
    index = FaissIndex(9, gpus="none", storage=storage)
    vectors = clustered(np.random.default_rng(5), 7, 9)
    index.add(np.arange(7), vectors)
    index.save(tmp_path / "f", {"a": "b"})
    encoded = form_of(storage).encode(vectors)
    with safe_open(tmp_path / "f", framework="numpy") as file:
        assert file.metadata()["storage"] == storage
        assert json.loads(file.metadata()["stamp"]) == {"a": "b"}
        for part, array in zip(form_of(storage).parts(9), encoded, strict=True):
            np.testing.assert_array_equal(file.get_tensor(part.name), array)


@pytest.mark.parametrize("storage", ["float16", "int8", "binary"])
def test_a_changed_byte_of_a_small_form_is_refused(tmp_path: Path, storage: Storage) -> None:
    index = FaissIndex(9, gpus="none", storage=storage)
    index.add(np.arange(2), clustered(np.random.default_rng(6), 2, 9))
    index.save(tmp_path / "f", {})
    whole = (tmp_path / "f").read_bytes()
    for place in range(len(whole)):
        (tmp_path / "f").write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(IndexingError, match="build the index again"):
            read_rows(tmp_path / "f")


def test_rows_added_to_a_mapped_file_do_not_bring_it_into_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    index = FaissIndex(64, gpus="none", storage="binary")
    index.add(np.arange(500), clustered(rng, 500, 64))
    index.save(tmp_path / "f", {})
    back, _ = FaissIndex.load(tmp_path / "f", gpus="none")
    heads = [array._head for array in back._rows._arrays if isinstance(array, Tailed)]
    back.add(np.arange(500, 520), clustered(rng, 20, 64))
    after = [array for array in back._rows._arrays if isinstance(array, Tailed)]
    assert len(heads) == 2
    assert all(
        array._head is head and len(array._tail) < 40 for array, head in zip(after, heads, strict=True)
    )


def test_bits_take_no_gpu(fake_gpus: list[dict], unit_vectors: Make) -> None:
    rng = np.random.default_rng(8)
    index = FaissIndex(32, storage="binary")
    index.add(np.arange(3000), unit_vectors(rng, 3000, 32))
    index.search(unit_vectors(rng, 1, 32), 10)
    assert fake_gpus == []
    assert index.describe()["device"] == "cpu"


def test_rows_of_a_form_are_decoded_on_their_way_to_a_gpu(fake_gpus: list[dict], unit_vectors: Make) -> None:
    rng = np.random.default_rng(9)
    index = FaissIndex(32, storage="int8")
    index.add(np.arange(3000), unit_vectors(rng, 3000, 32))
    index.search(unit_vectors(rng, 1, 32), 10)
    assert [copy["rows"] for copy in fake_gpus] == [3000]


def test_no_rows_are_rows_too() -> None:
    rows = Rows.none(form_of("binary"), 12)
    assert len(rows) == 0
    assert rows.drop(np.array([3])) == 0


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("mapped", [False, True])
def test_rows_that_come_in_many_small_adds_answer_as_if_they_came_at_once(
    unit_vectors: Make, storage: Storage, mapped: bool, tmp_path: Path
) -> None:
    vectors, ids = unit_vectors(np.random.default_rng(0), 300, 16), np.arange(300)
    once, by_and_by = (FaissIndex(16, gpus="none", storage=storage) for _ in range(2))
    once.add(ids, vectors)
    for start in range(0, 300, 25):
        by_and_by.add(ids[start : start + 25], vectors[start : start + 25])
        if mapped and start == 50:
            by_and_by.save(tmp_path / "index", {})
            by_and_by, _ = FaissIndex.load(tmp_path / "index", gpus="none")
    for expected, got in zip(once.search(vectors[:9], 300), by_and_by.search(vectors[:9], 300), strict=True):
        np.testing.assert_array_equal(got, expected)
