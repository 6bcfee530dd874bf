"""Retrieval by class and clusters, beside pytorch-metric-learning, scikit-learn and loops."""

import itertools

import numpy as np
import pytest

import crossmodal.metrics.classes as module
from crossmodal.errors import EvaluationError
from crossmodal.metrics.classes import evaluate_classes, evaluate_clusters, pair_f1


@pytest.fixture
def pictures(monkeypatch):
    """Sixty pictures of eight classes, one of them with one picture alone, in several blocks."""
    monkeypatch.setattr(module, "SCORES_PER_BLOCK", 2000)
    rng = np.random.default_rng(0)
    labels = np.append(rng.integers(0, 7, 59), 99)
    centres = rng.standard_normal((100, 8))
    rows = centres[labels] + 1.2 * rng.standard_normal((60, 8))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels


def test_each_picture_among_all_others(pictures):
    rows, labels = pictures
    scores = rows.astype(float) @ rows.astype(float).T
    found, maps = [], []
    for q in range(60):
        others = sorted((g for g in range(60) if g != q), key=lambda g: -scores[q, g])
        hits = [labels[g] == labels[q] for g in others]
        relevant = sum(hits)
        if relevant:
            found.append([any(hits[:k]) for k in (1, 5, 10)])
            maps.append(sum(sum(hits[: i + 1]) / (i + 1) for i in range(relevant) if hits[i]) / relevant)
    report = evaluate_classes(rows, labels)
    assert report.queries == len(found) == 59
    assert list(report.recall.values()) == pytest.approx(np.mean(found, axis=0))
    assert report.map_at_r == pytest.approx(np.mean(maps))


def test_pytorch_metric_learning_agrees(pictures):
    accuracy = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator")
    torch = pytest.importorskip("torch")
    rows, labels = pictures
    names = ("precision_at_1", "mean_average_precision_at_r", "r_precision")
    calculator = accuracy.AccuracyCalculator(include=names, k=59)
    theirs = calculator.get_accuracy(torch.from_numpy(rows), torch.from_numpy(labels))
    report = evaluate_classes(rows, labels)
    ours = report.recall[1], report.map_at_r, report.r_precision
    assert ours == pytest.approx(tuple(theirs[name] for name in names), abs=1e-6)


def test_clusters_of_classes_apart_match_them():
    pytest.importorskip("sklearn")
    labels = np.repeat(["cat", "dog", "bird"], 10)
    rows = np.repeat(np.eye(3), 10, axis=0) + 0.01 * np.random.default_rng(0).standard_normal((30, 3))
    assert evaluate_clusters(rows, labels).to_dict() == pytest.approx({"nmi": 1, "ami": 1, "f1": 1})


def test_pair_f1_counts_pairs():
    rng = np.random.default_rng(1)
    classes, clusters = rng.integers(0, 4, 40), rng.integers(0, 5, 40)
    pairs = list(itertools.combinations(range(40), 2))
    both = sum(classes[a] == classes[b] and clusters[a] == clusters[b] for a, b in pairs)
    precision = both / sum(clusters[a] == clusters[b] for a, b in pairs)
    recall = both / sum(classes[a] == classes[b] for a, b in pairs)
    assert pair_f1(classes, clusters) == pytest.approx(2 * precision * recall / (precision + recall))


def test_bad_input_is_refused():
    with pytest.raises(EvaluationError, match="No class of 2 pictures has two"):
        evaluate_classes(np.eye(2), [0, 1])
    with pytest.raises(EvaluationError, match=r"Classes came as \(3,\); give one for each of 2 pictures"):
        evaluate_classes(np.eye(2), [0, 1, 1])
