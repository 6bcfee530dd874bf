"""The log holds each step once, the curves show what was logged, and the page shows the queries it says."""

import base64
import io
import itertools
import json
import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crossmodal.errors import StorageError
from training.data.check import check_examples
from training.records.curves import HEIGHT, WIDTH, Chart, Curve, draw, nice_ticks, smoothed, thinned
from training.records.metrics_log import MetricsLog, read_metrics
from training.records.queries import Extremes, Query, image_to_text, text_to_image
from training.records.report import Report, charts_of, render, write_report

NASTY = "<script>alert('x')</script> & \"quotes\""


def test_a_resumed_run_has_every_step_once(tmp_path):
    log = MetricsLog(tmp_path / "run" / "metrics.jsonl")
    for step in range(1, 8):
        log.write(step, {"loss": 1 / step})
    log.write(5, {"rsum": 100.0})
    with log.path.open("a") as file:
        file.write('{"step": 8, "lo')
    assert log.cut_back(5) == 3
    assert [entry["step"] for entry in log.read()] == [1, 2, 3, 4, 5, 5]
    for step in (6, 7):
        log.write(step, {"loss": 1 / step})
    assert [entry["step"] for entry in log.read()] == [1, 2, 3, 4, 5, 5, 6, 7]
    assert log.cut_back(7) == 0
    assert MetricsLog(tmp_path / "none.jsonl").cut_back(3) == 0
    assert read_metrics(tmp_path / "none.jsonl") == []


def test_every_line_is_json_also_where_the_loss_is_not_finite(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write(1, {"loss": float("nan"), "rate": float("inf")})

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    json.loads(log.path.read_text(), parse_constant=refuse)
    [entry] = log.read()
    assert math.isnan(entry["loss"])
    assert entry["rate"] == math.inf


RANGES = [(0.13, 4.9), (0, 0), (-3, 0.7), (1e-5, 1.1e-5), (5, 5), (-2, -1), (0, 1e6)]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
def test_a_full_disk_is_told_in_one_line():
    with pytest.raises(StorageError, match="the disk is full"):
        MetricsLog(Path("/dev/full")).write(1, {"loss": 1.0})


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_ticks_are_round_even_and_hold_all_values(low, high):
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low <= high <= ticks[-1]
    assert 2 <= len(ticks) <= 9
    apart = {round((b - a) / (ticks[-1] - ticks[0]), 6) for a, b in itertools.pairwise(ticks)}
    assert len(apart) == 1


def places(svg):
    root = ET.fromstring(svg)
    lines = [e.attrib["points"] for e in root.iter("polyline")]
    return [[tuple(map(float, place.split(","))) for place in line.split()] for line in lines]


def test_a_curve_goes_through_its_points():
    points = [(0, 0.0), (10, 1.0), (20, 0.5), (40, 0.25)]
    [line] = places(draw(Chart(title="Loss", curves=[Curve(name="loss", points=points)])))
    steps = np.array([step for step, _ in points])
    values = np.array([value for _, value in points])
    for axis, true in ((0, steps), (1, values)):
        seen = np.array([place[axis] for place in line])
        fit = np.polyfit(true, seen, 1)
        np.testing.assert_allclose(np.polyval(fit, true), seen, atol=0.1)
        assert (fit[0] > 0) == (axis == 0), "more is to the right, and up"
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in line)


def test_a_value_that_is_not_finite_leaves_a_gap():
    points = [(0, 1.0), (1, 2.0), (2, math.nan), (3, 4.0), (4, 5.0), (5, math.inf), (6, 1.0)]
    svg = draw(Chart(title="t", curves=[Curve(name="c", points=points)]))
    assert [len(line) for line in places(svg)] == [2, 2]
    assert "<circle" in svg
    assert draw(Chart(title="t", curves=[Curve(name="c", points=[(0, math.nan)])])) == ""
    assert draw(Chart(title="t", curves=[])) == ""


def test_long_curves_are_thinned_by_means_and_smoothed_without_a_shift():
    points = [(step, float(step)) for step in range(10_000)]
    few = thinned(points)
    assert len(few) <= 400
    means = [np.mean([value for _, value in some]) for some in (few, points)]
    assert means[0] == pytest.approx(means[1], rel=0.01)
    np.testing.assert_allclose(smoothed(few), few)
    random = np.random.default_rng(0)
    noisy = [(step, float(value)) for step, value in enumerate(random.normal(size=400))]
    assert np.std([v for _, v in smoothed(noisy)]) < 0.4 * np.std([v for _, v in noisy])


def test_figures_become_charts_recalls_together_and_unknown_ones_by_themselves():
    metrics = [
        {"step": 1, "loss": 2.0, "own": 7, "note": "text", "flag": True},
        {"step": 2, "text_to_image.recall@1": 0.1, "text_to_image.recall@10": 0.3, "rsum": 40.0},
    ]
    charts = {chart.title: [(c.name, list(c.points)) for c in chart.curves] for chart in charts_of(metrics)}
    assert charts == {
        "Loss": [("loss", [(1, 2.0)])],
        "Recall, pictures by words": [("R@1", [(2, 0.1)]), ("R@10", [(2, 0.3)])],
        "Sum of recalls": [("rsum", [(2, 40.0)])],
        "own": [("own", [(1, 7.0)])],
    }


@pytest.fixture
def embedded(make_examples):
    """Twenty examples of one or two captions, and embeddings near each other within a pair."""
    examples = make_examples([[f"caption {i}", f"other {i}"][: 1 + i % 2] for i in range(20)])
    random = np.random.default_rng(0)
    images = random.normal(size=(20, 4)).astype(np.float32)
    texts = images[examples.captions.owners] + 0.8 * random.normal(size=(30, 4)).astype(np.float32)
    return examples, *(rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (images, texts))


def test_worst_and_best_queries_are_those_of_brute_force(embedded):
    examples, images, texts = embedded
    owners = examples.captions.owners
    scores = texts @ images.T
    ranks = []
    for row, own in zip(scores, owners, strict=True):
        ranks.append(1 + sum(score >= row[own] for image, score in enumerate(row) if image != own))
    found = text_to_image(examples, images, texts, count=5)
    assert [query.rank for query in found.worst] == sorted(ranks, reverse=True)[:5]
    leads = []
    for query in (*found.worst, *found.best):
        place = next(p for p in range(30) if examples.texts[examples.captions.values[p]] == query.text)
        assert query.rank == ranks[place]
        assert query.row == owners[place]
        strangers = [row for row in range(20) if row != query.row]
        assert query.other_row == max(strangers, key=lambda row: scores[place, row])
        assert query.score == pytest.approx(scores[place, query.row])
        leads.append(scores[place, query.row] - scores[place, query.other_row])
    assert all(query.rank == 1 for query in found.best)
    firsts = sorted((scores[p, o] - max(np.delete(scores[p], o)) for p, o in enumerate(owners)), reverse=True)
    np.testing.assert_allclose(leads[5:], firsts[:5], rtol=1e-4)

    back = image_to_text(examples, images, texts, count=20)
    for query in (*back.worst, *back.best):
        own = [p for p in range(30) if owners[p] == query.row]
        score = max(scores[p, query.row] for p in own)
        assert query.rank == 1 + sum(scores[p, query.row] >= score for p in range(30) if p not in own)
        assert query.gallery == 30
    assert len(back.worst) + len(back.best) == 20


def test_a_stranger_that_scores_as_high_ranks_before(make_examples):
    examples = make_examples([["one"], ["two"]])
    same = np.array([[1, 0], [1, 0]], np.float32)
    found = text_to_image(examples, same, same)
    assert [query.rank for query in found.worst] == [2, 2]
    assert found.best == ()


def page_of(examples):
    def query(rank):
        return Query(
            row=0, text=NASTY, rank=rank, gallery=9, score=0.5, other_row=1, other_text=NASTY, other_score=0.6
        )

    found = Extremes(worst=(query(7),), best=(query(1),))
    metrics = [
        {"step": 1, "loss": 1.0, NASTY: 2.0},
        {"step": 4, "rsum": 123.4, "image_to_text.recall@1": 0.456},
    ]
    return Report(
        title=NASTY,
        metrics=metrics,
        facts={NASTY: NASTY},
        recipe={NASTY: NASTY},
        check=[NASTY, *check_examples(examples).check.lines()],
        best_step=4,
        examples=examples,
        text_to_image=found,
        image_to_text=found,
    )


def test_the_page_stands_alone_with_pictures_and_escaped_words(make_examples, tmp_path):
    examples = make_examples([["one"], ["two"]])
    write_report(page_of(examples), tmp_path / "run" / "report.html")
    page = (tmp_path / "run" / "report.html").read_text()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["report.html"]
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 10
    assert not re.search(r'(src|href)="(?!data:)', page), "nothing is fetched"
    assert "123.4" in page
    assert "45.6%" in page
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    assert len(pictures) == 6
    for content in pictures:
        assert max(Image.open(io.BytesIO(base64.b64decode(content))).size) <= 144
    body = re.sub(r"<(img|meta)([^>]*)>", r"<\1\2/>", page.split("<!doctype html>")[1])
    ET.fromstring(body)  # every tag is closed


def test_the_page_is_written_with_little_to_tell_and_with_pictures_gone(make_examples, tmp_path):
    examples = make_examples([["one"], ["two"]])
    report = page_of(examples)
    for picture in examples.pictures:
        picture.unlink()
    assert render(report).count("cannot be read") == 6
    empty = render(Report(title="nothing yet", metrics=[]))
    assert "nothing yet" in empty
    assert "<section>" not in empty
