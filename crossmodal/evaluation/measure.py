"""Embeddings under a protocol: checked, measured, and reported."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from crossmodal.evaluation.judgements import read_judgements
from crossmodal.evaluation.pairs import Pairs
from crossmodal.evaluation.protocols import Protocol
from crossmodal.evaluation.reading import Embedded
from crossmodal.evaluation.result import DIRECTIONS, Measures, Result
from crossmodal.metrics import DirectionReport, evaluate_retrieval
from crossmodal.metrics.judged import evaluate_judged

Reports = dict[str, list[DirectionReport]]
"""By direction, a report for each fold."""


def measure(embedded: Embedded, protocol: Protocol, encoder: Mapping[str, Any]) -> Result:
    """Measure embeddings by a protocol; ``encoder`` says for the result whose they are.

    :raises EvaluationError: when they are not what the protocol measures, unless something was left out of
        them knowingly; or when they cannot be measured.
    """
    embedded = _first_captions(embedded, protocol.captions)
    if not embedded.left_out:
        protocol.check_counts(embedded.pairs)
    reports = _judged(embedded, protocol) if protocol.positives else _paired(embedded, protocol.folds)
    facts: dict[str, Any] = {
        "name": protocol.name,
        "images": len(embedded.pairs.image_ids),
        "texts": len(embedded.pairs.captions),
        "fingerprint": _fingerprint(embedded.pairs, protocol),
    }
    if embedded.left_out:
        facts["left_out"] = [list(pair) for pair in embedded.left_out]
    measures = {direction: _mean(reports[direction]) for direction in DIRECTIONS}
    return Result(protocol=facts, encoder=encoder, measures=measures, rsum=_rsum(measures), more={})


def _paired(embedded: Embedded, folds: int) -> Reports:
    """Measure by the pairs, each fold of the pictures against the captions of that fold."""
    owner = embedded.pairs.image_of_text
    reports = []
    for images in np.array_split(np.arange(len(embedded.images)), folds):
        first, last = images[0], images[-1] + 1
        inside = (owner >= first) & (owner < last) if folds > 1 else slice(None)
        reports.append(
            evaluate_retrieval(embedded.images[first:last], embedded.texts[inside], owner[inside] - first)
        )
    return {
        "text_to_image": [report.text_to_image for report in reports],
        "image_to_text": [report.image_to_text for report in reports],
    }


def _judged(embedded: Embedded, protocol: Protocol) -> Reports:
    """Measure by judgements in place of the pairs."""
    relevant = read_judgements(protocol.positives, embedded.pairs)
    sides = {
        "text_to_image": (embedded.texts, embedded.images),
        "image_to_text": (embedded.images, embedded.texts),
    }
    return {direction: [evaluate_judged(*sides[direction], relevant[direction])] for direction in DIRECTIONS}


def _mean(reports: list[DirectionReport]) -> Measures:
    """Average over the folds."""
    folds = [report.to_dict() for report in reports]
    return {name: float(np.mean([fold[name] for fold in folds])) for name in folds[0]}


def _rsum(measures: Mapping[str, Measures]) -> float:
    recalls = [
        value for side in measures.values() for name, value in side.items() if name.startswith("recall@")
    ]
    return 100 * sum(recalls)


def _first_captions(embedded: Embedded, captions: int | None) -> Embedded:
    """Keep so many captions of each picture, its first ones; all of them for None."""
    if captions is None:
        return embedded
    pairs = embedded.pairs
    kept = np.sort(np.concatenate([rows[:captions] for rows in pairs.texts_of_images]))
    if len(kept) == len(pairs.captions):
        return embedded
    fewer = replace(
        pairs,
        captions=tuple(pairs.captions[row] for row in kept.tolist()),
        image_of_text=pairs.image_of_text[kept],
    )
    return replace(embedded, pairs=fewer, texts=embedded.texts[kept])


def _fingerprint(pairs: Pairs, protocol: Protocol) -> str:
    """Hash what was measured; with folds, the order of the pictures says who meets whom, and counts."""
    whole = pairs.fingerprint()
    if protocol.folds == 1:
        return whole
    order = "\n".join([whole, *pairs.image_ids])
    return hashlib.sha256(order.encode(errors="surrogatepass")).hexdigest()[:16]
