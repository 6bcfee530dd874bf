"""What is told beyond the contract's measures: precision, how sure each mean is, how embeddings lie."""

from typing import Any

import numpy as np

from crossmodal.evaluation.measure import Measured
from crossmodal.evaluation.result import DIRECTIONS
from crossmodal.metrics.geometry import measure_geometry
from crossmodal.metrics.significance import LEVEL, SAMPLES, Totals, drawn, interval


def details(measured: Measured, *, samples: int = SAMPLES, seed: int = 0) -> dict[str, Any]:
    """Give for JSON by direction the means of ``precision@k`` and ``true_recall@k``, and all intervals.

    The intervals are of the bootstrap over pictures, both directions drawn together, which gives ``rsum`` one
    too. With folds, a picture stays in its fold's gallery, whatever is drawn.
    """
    totals = {direction: totals_of(measured, direction) for direction in DIRECTIONS}
    means = dict(zip(DIRECTIONS, drawn(list(totals.values()), samples=samples, seed=seed), strict=True))
    confidence: dict[str, Any] = {"level": LEVEL, "samples": samples, "seed": seed}
    told: dict[str, Any] = {}
    rsum = np.zeros(samples)
    for direction in DIRECTIONS:
        names = totals[direction].names
        values = measured.values(direction)
        told[direction] = {name: float(values[name].mean()) for name in names if _is_extra(name)}
        confidence[direction] = {name: list(interval(means[direction][:, i])) for i, name in enumerate(names)}
        rsum += sum(
            100 * means[direction][:, i] for i, name in enumerate(names) if name.startswith("recall@")
        )
    confidence["rsum"] = list(interval(rsum))
    embedded = measured.embedded
    shape = measure_geometry(embedded.images, embedded.texts, embedded.pairs.image_of_text)
    return {"details": told, "confidence": confidence, "geometry": shape.to_dict()}


def totals_of(measured: Measured, direction: str) -> Totals:
    """Add up what the queries of one direction contribute, by picture."""
    groups = len(measured.embedded.pairs.image_ids)
    return Totals.of(measured.values(direction), measured.groups(direction), groups)


def _is_extra(name: str) -> bool:
    return name.startswith(("precision@", "true_recall@"))
