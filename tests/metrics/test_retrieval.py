"""Measures against plain loops, on scores that tie, are negative, and cross every block."""

import math
from collections.abc import Callable

import numpy as np
import pytest

import crossmodal.metrics.counting as counting
from crossmodal.errors import EvaluationError
from crossmodal.metrics import evaluate_retrieval

Embeddings = tuple[np.ndarray, np.ndarray]


def measure_one(scores: list[float], relevant: list[bool], ks: tuple[int, ...]) -> dict[str, float]:
    """Measure one query by sorting its items: the irrelevant first among equals."""
    items = sorted(zip(scores, relevant, strict=True), key=lambda item: (-item[0], item[1]))
    ordered = [is_relevant for _, is_relevant in items]
    total = sum(ordered)
    first = ordered.index(True) + 1
    precisions = [sum(ordered[: i + 1]) / (i + 1) for i in range(len(ordered))]
    gains = [1 / math.log2(i + 2) for i in range(len(ordered)) if ordered[i] and i < 10]
    return {
        **{f"recall@{k}": float(any(ordered[:k])) for k in ks},
        "rank": first,
        "mrr": 1 / first,
        "map@r": sum(precisions[i] for i in range(total) if ordered[i]) / total,
        "r_precision": sum(ordered[:total]) / total,
        "ndcg@10": sum(gains) / sum(1 / math.log2(i + 2) for i in range(min(10, total))),
    }


def mean_of(queries: list[dict[str, float]]) -> dict[str, float]:
    ranks = sorted(query["rank"] for query in queries)
    middle = (ranks[(len(ranks) - 1) // 2] + ranks[len(ranks) // 2]) / 2
    means = {name: sum(q[name] for q in queries) / len(queries) for name in queries[0] if name != "rank"}
    return {**means, "median_rank": middle, "mean_rank": sum(ranks) / len(ranks)}


def brute_force(images: np.ndarray, texts: np.ndarray, owner: list[int], ks: tuple[int, ...]) -> dict:
    def score(i: int, t: int) -> float:
        product = math.fsum(float(a) * float(b) for a, b in zip(images[i], texts[t], strict=True))
        return float(np.float32(product))

    scores = [[score(i, t) for t in range(len(texts))] for i in range(len(images))]
    to_image = [
        measure_one([row[t] for row in scores], [i == owner[t] for i in range(len(images))], ks)
        for t in range(len(texts))
    ]
    to_text = [
        measure_one(scores[i], [owner[t] == i for t in range(len(texts))], ks)
        for i in range(len(images))
        if i in owner
    ]
    report = {"text_to_image": mean_of(to_image), "image_to_text": mean_of(to_text)}
    recalls = [v for side in report.values() for name, v in side.items() if name.startswith("recall@")]
    return {**report, "rsum": 100 * sum(recalls)}


def assert_close(seen: dict, expected: dict) -> None:
    assert seen.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, dict):
            assert_close(seen[name], value)
        else:
            assert seen[name] == pytest.approx(value, rel=1e-12), name


def random_scores(rng: np.random.Generator, n: int, owner: np.ndarray) -> Embeddings:
    """Texts that lean towards their image, so that ranks spread from first to last."""
    images = rng.standard_normal((n, 6))
    texts = 0.7 * images[owner] + rng.standard_normal((len(owner), 6))
    return normalised(images), normalised(texts)


def tied_scores(rng: np.random.Generator, n: int, owner: np.ndarray) -> Embeddings:
    return rng.choice([-0.5, 0.5], (n, 4)), rng.choice([-0.5, 0.5], (len(owner), 4))


def negative_scores(rng: np.random.Generator, n: int, owner: np.ndarray) -> Embeddings:
    """Each image and text points away from all the others; no score is above nought."""
    return normalised(np.abs(rng.standard_normal((n, 5)))), normalised(
        -np.abs(rng.standard_normal((len(owner), 5)))
    )


def duplicate_scores(rng: np.random.Generator, n: int, owner: np.ndarray) -> Embeddings:
    """Every picture and every text is there several times, in odd numbers that no sum keeps exactly."""
    images, texts = random_scores(rng, n, owner)
    return images[rng.integers(0, max(1, n // 4), n)], texts[rng.integers(0, max(1, n // 3), len(owner))]


def near_scores(rng: np.random.Generator, n: int, owner: np.ndarray) -> Embeddings:
    """All embeddings lie so close together that a product in float32 cannot order their scores."""
    middle = rng.standard_normal(257)
    images = middle + 1e-7 * rng.standard_normal((n, 257))
    return normalised(images), normalised(middle + 1e-7 * rng.standard_normal((len(owner), 257)))


def huge_scores(rng: np.random.Generator, n: int, owner: np.ndarray) -> Embeddings:
    """Embeddings whose products overflow where they are summed in float32, though no score does."""
    images, texts = random_scores(rng, n, owner)
    images = images * np.float32(1e19)
    return np.c_[images, -images, images], np.c_[texts, texts, texts] * np.float32(1e19)


def unequal_scores(rng: np.random.Generator, n: int, owner: np.ndarray) -> Embeddings:
    """Embeddings of very different lengths."""
    images, texts = random_scores(rng, n, owner)
    return images * np.logspace(-12, 12, n)[:, None], texts * np.logspace(12, -12, len(owner))[:, None]


def normalised(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


ALL_SCORES = [
    random_scores,
    tied_scores,
    negative_scores,
    duplicate_scores,
    near_scores,
    huge_scores,
    unequal_scores,
]


SMALL = {
    "SCORES_PER_BLOCK": 77,
    "TEXTS_PER_BLOCK": 11,
    "NUMBERS_PER_GATHER": 9,
    "THRESHOLDS_AT_ONCE": 2,
    "ROWS_JUDGED": 3,
}


@pytest.fixture(
    params=[{}, SMALL, {**SMALL, "MOST_DOUBTFUL": 1.0}, {**SMALL, "MOST_DOUBTFUL": -1.0}],
    ids=["one block", "many blocks", "each doubt settled by itself", "all multiplied again"],
)
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in request.param.items():
        monkeypatch.setattr(counting, name, value)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("make", ALL_SCORES)
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 12), (20, 20), (30, 100), (40, 25)])
def test_every_measure_equals_plain_loops(make: Callable[..., Embeddings], n: int, m: int) -> None:
    rng = np.random.default_rng(n + m)
    owner = rng.integers(0, n, m)
    images, texts = make(rng, n, owner)
    report = evaluate_retrieval(images, texts, owner)
    assert_close(report.to_dict(), brute_force(images, texts, owner.tolist(), (1, 5, 10)))
    assert report.images == n
    assert report.texts == report.text_to_image.queries == m
    assert report.image_to_text.queries == len(set(owner.tolist())) == n - report.images_without_text


def test_near_scores_are_beyond_what_float32_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shows that the test above can fail: without the bound on the error its ranks are wrong."""
    rng = np.random.default_rng(1)
    owner = rng.integers(0, 30, 100)
    images, texts = near_scores(rng, 30, owner)
    right = evaluate_retrieval(images, texts, owner)
    monkeypatch.setattr(counting, "_relative_error", lambda *_: 0.0)
    monkeypatch.setattr(counting, "MOST_DOUBTFUL", 1.0)
    assert evaluate_retrieval(images, texts, owner) != right


def test_precision_and_true_recall_count_what_any_hit_does_not() -> None:
    images = normalised(np.array([[1.0, 0], [0, 1]]))
    texts = normalised(np.array([[1.0, 0.1], [1, 0.2], [0.1, 1], [1, 0.9]]))
    report = evaluate_retrieval(images, texts, [0, 0, 1, 0], ks=(1, 2, 3))
    found = report.image_to_text.per_query
    assert report.image_to_text.recall == {1: 1.0, 2: 1.0, 3: 1.0}
    assert {name: value.tolist() for name, value in found.extra_values().items()} == {
        "precision@1": [1, 1],
        "precision@2": [1, 0.5],
        "precision@3": [1, pytest.approx(1 / 3)],
        "true_recall@1": [pytest.approx(1 / 3), 1],
        "true_recall@2": [pytest.approx(2 / 3), 1],
        "true_recall@3": [1, 1],
    }


def test_five_captions_of_a_picture_are_one_group() -> None:
    images = np.eye(3)
    texts = np.repeat(np.eye(3), 5, axis=0)
    report = evaluate_retrieval(images, texts, np.repeat([0, 1, 2], 5)).to_dict()
    perfect = {f"recall@{k}": 1.0 for k in (1, 5, 10)} | {
        "median_rank": 1.0,
        "mean_rank": 1.0,
        "mrr": 1.0,
        "map@r": 1.0,
        "r_precision": 1.0,
        "ndcg@10": 1.0,
    }
    assert report == {"text_to_image": perfect, "image_to_text": perfect, "rsum": 600.0}


def test_an_embedding_that_is_the_same_for_all_gets_the_worst_rank_and_not_the_best() -> None:
    alike = normalised(np.ones((40, 3)))
    report = evaluate_retrieval(alike, alike, np.arange(40))
    assert report.text_to_image.mean_rank == report.image_to_text.median_rank == 40
    assert report.rsum == 0


def test_a_right_answer_with_a_negative_score_counts() -> None:
    report = evaluate_retrieval(np.array([[1.0, 0], [-1, 0]]), np.array([[-0.1, 0], [-1, 0]]), [1, 1])
    assert report.text_to_image.recall == {1: 1.0, 5: 1.0, 10: 1.0}
    behind = evaluate_retrieval(np.array([[1.0, 0]]), np.array([[-0.1, 0], [-1, 0]]), [0, 0])
    assert behind.image_to_text.recall[1] == 1.0


def test_images_without_text_distract_but_are_no_queries() -> None:
    images = normalised(np.array([[1.0, 0.2], [0, 1], [1, 0]]))
    report = evaluate_retrieval(images, np.array([[1.0, 0], [0, 1]]), [0, 1])
    assert report.images_without_text == 1
    assert report.image_to_text.queries == 2
    assert report.image_to_text.recall[1] == 1.0
    assert report.text_to_image.recall[1] == 0.5
    assert report.text_to_image.mean_rank == 1.5


def test_recall_is_given_at_the_ranks_asked_for() -> None:
    rng = np.random.default_rng(1)
    owner = rng.integers(0, 30, 60)
    images, texts = random_scores(rng, 30, owner)
    report = evaluate_retrieval(images, texts, owner, ks=(2, 30, 1000))
    assert_close(report.to_dict(), brute_force(images, texts, owner.tolist(), (2, 30, 1000)))
    assert report.text_to_image.recall[30] == report.text_to_image.recall[1000] == 1.0


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_precisions_are_measured_as_they_are(dtype: type) -> None:
    rng = np.random.default_rng(2)
    owner = rng.integers(0, 25, 50)
    images, texts = (rows.astype(dtype) for rows in random_scores(rng, 25, owner))
    report = evaluate_retrieval(np.asfortranarray(images), texts[:], owner.astype(np.uint8))
    assert_close(report.to_dict(), brute_force(images, texts, owner.tolist(), (1, 5, 10)))


GOOD = np.eye(3), np.eye(3), np.arange(3)
ZERO = np.array([[1.0, 0, 0], [0, 0, 0], [0, 0, 1]])
HURT = np.array([[1.0, 0, 0], [np.nan, 0, 0], [0, np.inf, 0]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: HURT}, "2 image embeddings hold NaN or infinity: rows 1, 2. Encode"),
        ({1: HURT}, "2 text embeddings hold NaN or infinity: rows 1, 2. Encode"),
        ({0: np.eye(4)[:3]}, "Image embeddings have 4 dimensions and text embeddings 3;"),
        ({0: ZERO}, "1 image embeddings are zero throughout: rows 1. Encode"),
        ({1: np.eye(3)[:, :2] + 1}, "Image embeddings have 3 dimensions and text embeddings 2;"),
        ({0: np.eye(3)[0]}, "Image embeddings came as float64 (3,); give floats"),
        ({0: np.empty((0, 3))}, "Image embeddings came as float64 (0, 3); give floats"),
        ({1: np.eye(3, dtype=int)}, "Text embeddings came as int64 (3, 3); give floats"),
        ({2: [0, 3, -1]}, "2 texts name an image outside 0 to 2: rows 1, 2. Correct image_of_text."),
        ({2: [0, 1]}, "image_of_text came as int64 (2,); give an integer for each of 3 texts."),
        ({2: [0.0, 1.0, 2.0]}, "image_of_text came as float64 (3,)"),
        ({3: (0, 5)}, "Recall is asked for at (0, 5); give ranks of 1 or more."),
        ({3: ()}, "Recall is asked for at ()"),
    ],
)
def test_bad_input_is_refused_in_one_line_that_says_where(change: dict, message: str) -> None:
    arguments = dict(enumerate((*GOOD, (1, 5, 10)))) | change
    with pytest.raises(EvaluationError) as raised:
        evaluate_retrieval(*arguments.values())
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
