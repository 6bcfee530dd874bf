"""What must hold for every index: ids and scores of brute force, whatever the vectors."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crossmodal.errors import IndexingError
from crossmodal.index import Index

MakeIndex = Callable[[int], Index]
Make = Callable[..., np.ndarray]
BruteForce = Callable[..., tuple[np.ndarray, np.ndarray]]


def assert_same(seen: tuple[np.ndarray, np.ndarray], expected: tuple[np.ndarray, np.ndarray]) -> None:
    np.testing.assert_array_equal(seen[1], expected[1])
    np.testing.assert_array_equal(seen[0], expected[0])
    assert seen[0].dtype == np.float32
    assert seen[1].dtype == np.int64


@pytest.mark.parametrize(("n", "dim"), [(1, 4), (40, 4), (700, 16), (3000, 24), (2500, 384)])
@pytest.mark.parametrize(("q", "k"), [(1, 1), (3, 10), (40, 10), (2, 400), (2, 5000)])
def test_ids_and_scores_equal_brute_force(
    make_index: MakeIndex, make_vectors: Make, brute_force: BruteForce, n: int, dim: int, q: int, k: int
) -> None:
    rng = np.random.default_rng(n + dim + q + k)
    vectors, queries = make_vectors(rng, n, dim), make_vectors(rng, q, dim)
    queries[0] = vectors[0]
    ids = rng.permutation(10 * n)[:n]
    index = make_index(dim)
    index.add(ids, vectors)
    assert_same(index.search(queries, k), brute_force(ids, vectors, queries, k))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.019, 0.021, 0.3, 0.97, 1.0])
@pytest.mark.parametrize("q", [1, 30])
def test_a_filter_gives_the_best_of_what_it_allows_and_as_many_as_there_are(
    make_index: MakeIndex, make_vectors: Make, brute_force: BruteForce, share: float, q: int
) -> None:
    rng = np.random.default_rng(int(share * 1000) + q)
    n, dim, k = 6000, 16, 10
    vectors, queries = make_vectors(rng, n, dim), make_vectors(rng, q, dim)
    ids = rng.permutation(3 * n)[:n]
    allowed = rng.choice(ids, int(share * n), replace=False)
    absent = np.setdiff1d(np.arange(3 * n), ids)[:5]
    index = make_index(dim)
    index.add(ids, vectors)
    seen = index.search(queries, k, np.concatenate([allowed, absent, allowed[:3]]))
    assert_same(seen, brute_force(ids, vectors, queries, k, allowed))
    assert ((seen[1] >= 0).sum(axis=1) == min(k, len(allowed))).all()


def test_a_thousand_rows_alike_come_in_the_order_of_their_ids(make_index: MakeIndex) -> None:
    rng = np.random.default_rng(5)
    ids = rng.permutation(1000)
    vectors = np.tile(np.full(64, 0.125, np.float32), (1000, 1))
    index = make_index(64)
    index.add(ids, vectors)
    scores, found = index.search(vectors[:1], 10)
    assert found.tolist() == [list(range(10))]
    assert scores.tolist() == [[1.0] * 10]
    odd = index.search(vectors[:1], 10, np.arange(1, 1000, 2))[1]
    assert odd.tolist() == [list(range(1, 20, 2))]


def test_a_query_has_the_same_answer_alone_and_among_many(make_index: MakeIndex, make_vectors: Make) -> None:
    rng = np.random.default_rng(6)
    index = make_index(48)
    index.add(np.arange(4000), make_vectors(rng, 4000, 48))
    queries = make_vectors(rng, 50, 48)
    together = index.search(queries, 7)
    for q in range(len(queries)):
        alone = index.search(queries[q : q + 1], 7)
        assert_same(alone, (together[0][q : q + 1], together[1][q : q + 1]))


def test_half_precision_embeddings_are_taken_and_scored_as_they_are(
    make_index: MakeIndex, unit_vectors: Make, brute_force: BruteForce
) -> None:
    rng = np.random.default_rng(7)
    rough = unit_vectors(rng, 2000, 128).astype(np.float16)
    queries = unit_vectors(rng, 4, 128)
    index = make_index(128)
    index.add(np.arange(2000), rough)
    expected = brute_force(np.arange(2000), rough.astype(np.float32), queries, 10)
    assert_same(index.search(queries, 10), expected)


def test_an_empty_index_gives_padding(make_index: MakeIndex) -> None:
    index = make_index(4)
    scores, ids = index.search(np.eye(4), 3)
    assert scores.tolist() == [[-np.inf] * 3] * 4
    assert ids.tolist() == [[-1] * 3] * 4
    assert index.search(np.eye(4), 3, [1, 2])[1].tolist() == [[-1] * 3] * 4
    assert len(index) == 0
    assert index.ids().tolist() == []
    assert index.remove([1]) == 0


def test_no_queries_give_no_rows(make_index: MakeIndex) -> None:
    index = make_index(4)
    index.add([3], np.eye(4)[:1])
    scores, ids = index.search(np.empty((0, 4), np.float32), 3)
    assert scores.shape == ids.shape == (0, 3)


def test_adding_and_removing_nothing_changes_nothing(make_index: MakeIndex) -> None:
    index = make_index(4)
    index.add([], np.empty((0, 4)))
    index.add([2, 1], np.eye(4)[:2])
    index.add([], np.empty((0, 4)))
    assert index.remove([]) == 0
    assert index.ids().tolist() == [1, 2]


def test_float64_and_strided_input_is_converted(
    make_index: MakeIndex, unit_vectors: Make, brute_force: BruteForce
) -> None:
    rng = np.random.default_rng(8)
    vectors, queries = unit_vectors(rng, 900, 12), unit_vectors(rng, 6, 12)
    index = make_index(12)
    strided = np.asfortranarray(np.repeat(vectors, 2, axis=0))[::2]
    index.add(np.arange(0, 1800, 2, dtype=np.uint32), strided.astype(np.float64))
    seen = index.search(queries.astype(np.float64)[::-1], 5)
    assert_same(seen, brute_force(np.arange(0, 1800, 2), vectors, queries[::-1], 5))


def test_adding_copies_so_that_the_callers_array_may_change(make_index: MakeIndex) -> None:
    vectors = np.eye(4, dtype=np.float32)
    index = make_index(4)
    index.add(np.arange(4), vectors)
    before = vectors.copy()
    vectors[:] = np.roll(vectors, 1, axis=0)
    assert index.search(before, 1)[1].ravel().tolist() == [0, 1, 2, 3]


def test_largest_ids_survive(make_index: MakeIndex) -> None:
    top = 2**63 - 1
    index = make_index(2)
    index.add(np.array([top, 0], np.uint64), np.eye(2))
    assert index.search(np.eye(2), 2)[1].tolist() == [[top, 0], [0, top]]
    assert index.search(np.eye(2), 1, [top])[1].tolist() == [[top], [top]]


def test_ids_far_outside_those_known_are_nowhere(make_index: MakeIndex) -> None:
    index = make_index(4)
    index.add([3, 4, 5, 6], np.eye(4))
    outside = [0, 2, 7, 8, 2**40, 2**63 - 1]
    assert index.search(np.eye(4)[:1], 2, outside)[1].tolist() == [[-1, -1]]
    assert index.search(np.eye(4)[:1], 2, [*outside, 5])[1].tolist() == [[5, -1]]
    assert index.remove(outside) == 0
    index.add([2**63 - 1], np.eye(4)[:1])
    assert index.search(np.eye(4)[:1], 2)[1].tolist() == [[3, 2**63 - 1]]


@pytest.mark.parametrize(
    ("ids", "vectors", "message"),
    [
        (
            [7, 8, 9],
            np.array([[1, 0], [np.nan, 0], [0, np.inf]]),
            r"2 of 3 .* hold NaN.*: rows with ids 8, 9\.",
        ),
        ([9, 6], np.array([[1, 0], [3, 4]]) * 1.0, r"1 of 2 .* not L2-normalised: rows with ids 6\. Divide"),
        (
            [0, 1],
            np.array([[0, 0], [1, 0]]) * 1.0,
            r"1 of 2 vector rows are not L2-normalised: rows with ids 0\.",
        ),
        ([0], np.full((1, 2), 1e30, np.float32), r"1 of 1 vector rows are not L2-normalised"),
        ([0], np.array([[1.0, 0, 0]]), r"shape \(1, 3\); this index takes \(N, 2\)"),
        ([0], np.array([1.0, 0]), r"shape \(2,\); this index takes \(N, 2\)"),
        ([0], np.array([[1, 0]]), r"came as int64; give floats"),
        ([0, 1], np.array([[1.0, 0]]), r"2 ids came with 1 vectors"),
        ([4, 9, 4], np.eye(2)[[0, 1, 0]], r"1 ids come more than once in one add: 4\."),
        ([0, -7], np.eye(2), r"from -7 to 0; give 0 to"),
        ([0.0, 1.0], np.eye(2), r"came as float64; give integers"),
        (np.array([0, 2**63], np.uint64), np.eye(2), r"from 0 to 9223372036854775808"),
        ([[0, 1]], np.eye(2), r"shape \(1, 2\); give one dimension"),
    ],
)
def test_bad_rows_are_refused_by_name_and_leave_the_index_alone(
    make_index: MakeIndex, ids: list[int], vectors: np.ndarray, message: str
) -> None:
    index = make_index(2)
    index.add([5], np.array([[0.6, 0.8]]))
    with pytest.raises(IndexingError, match=message) as raised:
        index.add(ids, vectors)
    assert "\n" not in str(raised.value)
    assert index.ids().tolist() == [5]
    assert index.search(np.array([[0.6, 0.8]]), 1)[1].tolist() == [[5]]


@pytest.mark.parametrize(
    ("queries", "k", "allowed", "message"),
    [
        (np.eye(2), 0, None, r"number of hits asked for is 0; ask for 1 or more"),
        (np.array([[1, 0], [0, np.nan]]), 1, None, r"1 of 2 query rows hold NaN.*: rows 1\."),
        (np.eye(2) * 7, 1, None, r"2 of 2 query rows are not L2-normalised: rows 0, 1\."),
        (np.eye(3), 1, None, r"Query array has shape \(3, 3\)"),
        (np.eye(2)[0], 1, None, r"Query array has shape \(2,\)"),
        (np.eye(2), 1, ["a"], r"came as <U1; give integers"),
        (np.eye(2), 1, [-1], r"from -1 to -1"),
    ],
)
def test_bad_questions_are_refused(
    make_index: MakeIndex, queries: np.ndarray, k: int, allowed: list[int] | None, message: str
) -> None:
    index = make_index(2)
    index.add([0, 1], np.eye(2))
    with pytest.raises(IndexingError, match=message):
        index.search(queries, k, allowed)


def test_no_dimensions_are_refused(make_index: MakeIndex) -> None:
    with pytest.raises(IndexingError, match="0 dimensions"):
        make_index(0)


def test_describe_counts_rows_and_names_the_place(make_index: MakeIndex) -> None:
    index = make_index(2)
    index.add([0, 1], np.eye(2))
    facts = index.describe()
    assert facts["rows"] == 2
    assert facts["dim"] == 2
    assert facts["kind"] in ("exact", "faiss")
    assert facts["device"].startswith(("cpu", "gpu"))


ids_of_a_step = st.lists(st.integers(0, 60), unique=True, max_size=25)
steps = st.lists(st.tuples(st.sampled_from(["add", "remove"]), ids_of_a_step), max_size=12)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps, seed=st.integers(0, 2**32 - 1))
def test_any_sequence_of_changes_ends_where_a_dict_does(
    make_index: MakeIndex, brute_force: BruteForce, steps: list[tuple[str, list[int]]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    index, model = make_index(4), {}
    query = rng.choice([-0.5, 0.5], (1, 4))
    for what, ids in steps:
        if what == "add":
            vectors = rng.choice([-0.5, 0.5], (len(ids), 4))
            index.add(ids, vectors)
            model.update(zip(ids, vectors, strict=True))
        else:
            assert index.remove(ids + ids[:2]) == sum(model.pop(i, None) is not None for i in ids)
        known = np.array(list(model), np.int64)
        rows = np.array(list(model.values())).reshape(-1, 4)
        assert len(index) == len(model)
        assert index.ids().tolist() == sorted(model)
        assert_same(index.search(query, 5), brute_force(known, rows, query, 5))
        assert_same(index.search(query, 5, ids), brute_force(known, rows, query, 5, np.array(ids)))
