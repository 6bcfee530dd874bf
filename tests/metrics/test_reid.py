"""Re-identification against loops: cameras, junk, distractors, ties."""

import numpy as np
import pytest

from crossmodal.errors import EvaluationError
from crossmodal.metrics.reid import evaluate_reid


@pytest.mark.parametrize("ties", [False, True])
def test_measures_equal_loops(ties):
    rng = np.random.default_rng(0)
    draw = (lambda size: rng.choice([-1.0, 1.0], size)) if ties else rng.standard_normal
    queries, gallery = draw((30, 4)).astype(np.float32), draw((120, 4)).astype(np.float32)
    person, camera = rng.integers(1, 9, 30), rng.integers(1, 4, 30)
    people, cameras = rng.integers(-1, 8, 120), rng.integers(1, 4, 120)
    ranks, precisions = [], []
    for q in range(30):
        kept = [
            g
            for g in range(120)
            if people[g] != -1 and not (people[g] == person[q] and cameras[g] == camera[q])
        ]
        score = {g: np.float32(queries[q].astype(float) @ gallery[g].astype(float)) for g in kept}
        order = sorted(kept, key=lambda g: (-score[g], people[g] == person[q]))
        hits = [people[g] == person[q] for g in order]
        if not any(hits):
            continue
        ranks.append(hits.index(True) + 1)
        places = [i + 1 for i, hit in enumerate(hits) if hit]
        precisions.append(np.mean([(n + 1) / place for n, place in enumerate(places)]))
    report = evaluate_reid(queries, gallery, person, people, camera, cameras)
    assert report.queries == len(ranks) == 30 - report.unanswerable
    assert report.unanswerable > 0
    assert report.mean_ap == pytest.approx(np.mean(precisions))
    for k, share in report.cmc.items():
        assert share == pytest.approx(np.mean(np.array(ranks) <= k))


def test_bad_input_is_refused():
    with pytest.raises(EvaluationError, match="None of 1 queries has its person"):
        evaluate_reid([[1.0]], [[1.0]], [3], [3], [1], [1])
    with pytest.raises(EvaluationError, match=r"gallery_camera came as \(2,\); give one for each of 1"):
        evaluate_reid([[1.0]], [[1.0]], [3], [3], [1], [1, 2])
