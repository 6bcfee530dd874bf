"""Embeddings under a protocol: checked and measured."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from crossmodal.evaluation.judgements import read_judgements
from crossmodal.evaluation.pairs import Integers, Pairs
from crossmodal.evaluation.protocols import Protocol
from crossmodal.evaluation.reading import Embedded
from crossmodal.evaluation.result import DIRECTIONS, Measures, Result
from crossmodal.metrics import DirectionReport, evaluate_retrieval
from crossmodal.metrics.judged import evaluate_judged
from crossmodal.metrics.measures import Numbers


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fold:
    """Pictures and captions that were measured against each other, by their rows: slices of all of them."""

    images: Integers
    texts: Integers
    reports: Mapping[str, DirectionReport]

    def queries(self, direction: str) -> Integers:
        """Give the rows of the queries that were asked, as ``per_query`` of the report has them."""
        asked = self.texts if direction == "text_to_image" else self.images
        return asked[self.reports[direction].per_query.query]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """What was measured, by which rule, and what came out for every query of every fold."""

    embedded: Embedded
    protocol: Protocol
    folds: tuple[Fold, ...]

    def result(self, encoder: Mapping[str, Any]) -> Result:
        """Report it; ``encoder`` says whose the embeddings are."""
        pairs, left_out = self.embedded.pairs, self.embedded.left_out
        facts: dict[str, Any] = {
            "name": self.protocol.name,
            "images": len(pairs.image_ids),
            "texts": len(pairs.captions),
            "fingerprint": _fingerprint(pairs, self.protocol),
        }
        if left_out:
            facts["left_out"] = [list(pair) for pair in left_out]
        measures = {direction: self._mean(direction) for direction in DIRECTIONS}
        return Result(protocol=facts, encoder=encoder, measures=measures, rsum=_rsum(measures), more={})

    def values(self, direction: str) -> dict[str, Numbers]:
        """Give by name what each query contributes to a mean (Q,), fold after fold."""
        every = [fold.reports[direction].per_query for fold in self.folds]
        parts = [{**one.values(), **one.extra_values()} for one in every]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def queries(self, direction: str) -> Integers:
        """Give the row of each query of ``values`` among all captions or pictures: (Q,)."""
        return np.concatenate([fold.queries(direction) for fold in self.folds])

    def groups(self, direction: str) -> Integers:
        """Give the picture that each query of ``values`` is of, or is: (Q,)."""
        rows = self.queries(direction)
        return self.embedded.pairs.image_of_text[rows] if direction == "text_to_image" else rows

    def _mean(self, direction: str) -> Measures:
        """Average the measures over the folds."""
        folds = [fold.reports[direction].to_dict() for fold in self.folds]
        return {name: float(np.mean([fold[name] for fold in folds])) for name in folds[0]}


def measure(embedded: Embedded, protocol: Protocol) -> Measured:
    """Measure embeddings by a protocol.

    :raises EvaluationError: when they are not what the protocol measures, less what was left out of them
        knowingly; or when they cannot be measured.
    """
    embedded = _first_captions(embedded, protocol.captions)
    protocol.check_counts(embedded.pairs, missing=len(embedded.left_out))
    folds = [_judged(embedded, protocol)] if protocol.positives else _paired(embedded, protocol.folds)
    return Measured(embedded=embedded, protocol=protocol, folds=tuple(folds))


def _paired(embedded: Embedded, count: int) -> list[Fold]:
    """Measure by the pairs, each fold of the pictures against the captions of that fold."""
    owner = embedded.pairs.image_of_text
    folds = []
    for images in np.array_split(np.arange(len(embedded.images)), count):
        first, last = images[0], images[-1] + 1
        texts = np.flatnonzero((owner >= first) & (owner < last))
        own = embedded.texts if len(texts) == len(owner) else embedded.texts[texts]
        report = evaluate_retrieval(embedded.images[first:last], own, owner[texts] - first)
        reports = {"text_to_image": report.text_to_image, "image_to_text": report.image_to_text}
        folds.append(Fold(images=images, texts=texts, reports=reports))
    return folds


def _judged(embedded: Embedded, protocol: Protocol) -> Fold:
    """Measure by judgements in place of the pairs."""
    relevant = read_judgements(protocol.positives, embedded.pairs)
    images, texts = embedded.images, embedded.texts
    reports = {
        "text_to_image": evaluate_judged(texts, images, relevant["text_to_image"]),
        "image_to_text": evaluate_judged(images, texts, relevant["image_to_text"]),
    }
    return Fold(images=np.arange(len(images)), texts=np.arange(len(texts)), reports=reports)


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
