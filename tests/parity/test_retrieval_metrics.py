"""Retrieval measures beside those of other libraries, on scores without ties; and where ties part them."""

import numpy as np
import pytest

from crossmodal import evaluate_retrieval
from crossmodal.metrics import RetrievalReport

KS = (1, 5, 10)


class Case:
    """Forty pictures and some captions, every picture with one at least; normalised, no two scores tie."""

    def __init__(self, seed: int, towards: float) -> None:
        rng = np.random.default_rng(seed)
        self.owner = np.concatenate([np.arange(40), rng.integers(0, 40, 40 * (1 + seed))])
        self.images = rng.standard_normal((40, 12)) + towards
        self.texts = self.images[self.owner] * 0.4 + rng.standard_normal((len(self.owner), 12)) - towards
        self.images = (self.images / np.linalg.norm(self.images, axis=1, keepdims=True)).astype(np.float32)
        self.texts = (self.texts / np.linalg.norm(self.texts, axis=1, keepdims=True)).astype(np.float32)
        self.scores = (self.images.astype(np.float64) @ self.texts.astype(np.float64).T).astype(np.float32)
        assert all(len(set(row)) == len(row) for row in (*self.scores.tolist(), *self.scores.T.tolist()))
        self.relevant = np.arange(40)[:, None] == self.owner

    def report(self) -> RetrievalReport:
        return evaluate_retrieval(self.images, self.texts, self.owner)

    def sides(self):
        """Give each direction's measures, scores with queries as rows, and what is relevant."""
        report = self.report()
        yield report.text_to_image, self.scores.T, self.relevant.T
        yield report.image_to_text, self.scores, self.relevant


@pytest.fixture(params=[(1, 0.0), (2, 0.0), (4, 3.0)], ids=["few captions", "more", "negative scores"])
def case(request: pytest.FixtureRequest) -> Case:
    made = Case(*request.param)
    assert (made.scores.max() < 0) == (request.param[1] > 0)
    return made


def test_pytrec_eval(case: Case) -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval")
    for report, scores, relevant in case.sides():
        judged = {f"q{q}": {f"d{d}": 1 for d in np.flatnonzero(row)} for q, row in enumerate(relevant)}
        run = {f"q{q}": {f"d{d}": float(s) for d, s in enumerate(row)} for q, row in enumerate(scores)}
        wanted = {"success", "P", "recall", "Rprec", "recip_rank", "ndcg_cut_10"}
        every = pytrec_eval.RelevanceEvaluator(judged, wanted).evaluate(run).values()
        theirs = {name: np.mean([one[name] for one in every]) for name in next(iter(every))}
        extra = {name: value.mean() for name, value in report.per_query.extra_values().items()}
        for k in (1, 5, 10):
            assert report.recall[k] == pytest.approx(theirs[f"success_{k}"], abs=1e-6)
        for k in (5, 10):
            assert extra[f"precision@{k}"] == pytest.approx(theirs[f"P_{k}"], abs=1e-6)
            assert extra[f"true_recall@{k}"] == pytest.approx(theirs[f"recall_{k}"], abs=1e-6)
        assert report.mrr == pytest.approx(theirs["recip_rank"], abs=1e-6)
        assert report.r_precision == pytest.approx(theirs["Rprec"], abs=1e-6)
        assert report.ndcg_at_10 == pytest.approx(theirs["ndcg_cut_10"], abs=1e-6)


def test_sklearn(case: Case) -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    for report, scores, relevant in case.sides():
        theirs = sklearn_metrics.ndcg_score(relevant.astype(float), scores.astype(np.float64), k=10)
        assert report.ndcg_at_10 == pytest.approx(theirs, abs=1e-6)


def test_pytorch_metric_learning(case: Case) -> None:
    accuracy = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator")
    torch = pytest.importorskip("torch")
    names = ("precision_at_1", "mean_average_precision_at_r", "r_precision", "mean_reciprocal_rank")
    report = case.report()
    for side, queries, gallery, asked, offered in (
        (report.text_to_image, case.texts, case.images, case.owner, np.arange(40)),
        (report.image_to_text, case.images, case.texts, np.arange(40), case.owner),
    ):
        calculator = accuracy.AccuracyCalculator(include=names, k=len(gallery))
        arrays = map(torch.from_numpy, (queries, asked, gallery, offered))
        theirs = calculator.get_accuracy(*arrays)
        ours = (side.recall[1], side.map_at_r, side.r_precision, side.mrr)
        assert ours == pytest.approx(tuple(theirs[name] for name in names), abs=1e-6)


def test_clip_benchmark(case: Case) -> None:
    theirs = pytest.importorskip("clip_benchmark.metrics.zeroshot_retrieval")
    torch = pytest.importorskip("torch")
    for report, scores, relevant in case.sides():
        given = torch.from_numpy(np.ascontiguousarray(scores))
        right = torch.from_numpy(np.ascontiguousarray(relevant))
        for k in KS:
            found = theirs.recall_at_k(given, right, k)
            assert report.recall[k] == pytest.approx((found > 0).float().mean().item(), abs=1e-6)
            true_recall = report.per_query.extra_values()[f"true_recall@{k}"].mean()
            assert true_recall == pytest.approx(found.mean().item(), abs=1e-6)


def test_ties_part_us_from_libraries_that_break_them_by_position() -> None:
    """An encoder that gives everything one embedding knows nothing; topk finds row 0 for it all the same."""
    torch = pytest.importorskip("torch")
    alike = np.ones((40, 4), np.float32) / 2
    found = torch.topk(torch.from_numpy(alike @ alike.T), 10, dim=1).indices
    by_position = float((found == torch.arange(40)[:, None]).any(dim=1).float().mean())
    assert by_position > 0
    assert evaluate_retrieval(alike, alike, np.arange(40)).text_to_image.recall[10] == 0
