"""What corrections of scores do to a measurement, each beside it and by itself.

A correction that looks at the other test queries is transductive: no search engine sees tomorrow's queries
today, so its numbers stand apart.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossmodal.errors import EvaluationError, unknown
from crossmodal.evaluation.details import totals_of
from crossmodal.evaluation.measure import Fold, Measured, measure
from crossmodal.evaluation.reading import Embedded
from crossmodal.evaluation.result import DIRECTIONS
from crossmodal.metrics.significance import differences
from crossmodal.ranking import expansion, hubness

Vectors = NDArray[np.float32]
Correct = Callable[[Vectors, Vectors, Vectors], tuple[Vectors, Vectors]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reranker:
    """A correction of queries and gallery, given a bank of queries.

    ``takes_bank``: it asks for queries other than its own. ``takes_test``: it is made of the test queries.
    """

    correct: Correct
    takes_bank: bool = True
    takes_test: bool = False


def _expanded(queries: Vectors, gallery: Vectors, _bank: Vectors) -> tuple[Vectors, Vectors]:
    return expansion.expand_queries(queries, gallery), gallery


RERANKERS = {
    "nnn": Reranker(correct=hubness.nnn),
    "qb-norm": Reranker(correct=hubness.qb_norm),
    "inverted-softmax": Reranker(correct=hubness.inverted_softmax),
    "csls": Reranker(correct=hubness.csls),
    "dual-softmax": Reranker(correct=hubness.dual_softmax, takes_bank=False, takes_test=True),
    "query-expansion": Reranker(correct=_expanded, takes_bank=False),
}


def find_rerankers(names: str) -> list[str]:
    """Read names with commas between them.

    :raises EvaluationError: when one is unknown; it lists the known ones.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in RERANKERS:
            raise EvaluationError(unknown("re-ranking", name, RERANKERS))
    return wanted


def reranked(measured: Measured, name: str, bank: Embedded | None = None) -> Measured:
    """Measure again with corrected scores; without a bank, the test queries serve as one.

    :raises EvaluationError: when the protocol has folds, whose galleries differ, or the bank is of another
        encoder.
    """
    if measured.protocol.folds > 1:
        raise EvaluationError(
            f"{measured.protocol.name} has folds, each a gallery of its own; re-rank under coco-5k instead"
        )
    embedded = measured.embedded
    images, texts = (np.asarray(rows, np.float32) for rows in (embedded.images, embedded.texts))
    takes_bank = bank is not None and RERANKERS[name].takes_bank
    bank_images, bank_texts = (bank.images, bank.texts) if bank and takes_bank else (images, texts)
    if bank_images.shape[1] != images.shape[1]:
        raise EvaluationError(
            f"The bank has {bank_images.shape[1]} dimensions and what is measured {images.shape[1]}; "
            "both must come from the same encoder"
        )
    correct = RERANKERS[name].correct
    asking_texts, offered_images = correct(texts, images, np.asarray(bank_texts, np.float32))
    asking_images, offered_texts = correct(images, texts, np.asarray(bank_images, np.float32))
    to_image = measure(replace(embedded, images=offered_images, texts=asking_texts), measured.protocol)
    to_text = measure(replace(embedded, images=asking_images, texts=offered_texts), measured.protocol)
    fold = Fold(
        images=to_image.folds[0].images,
        texts=to_image.folds[0].texts,
        reports={
            "text_to_image": to_image.folds[0].reports["text_to_image"],
            "image_to_text": to_text.folds[0].reports["image_to_text"],
        },
    )
    return replace(measured, folds=(fold,))


def rerank_report(
    measured: Measured, names: Sequence[str], bank: Embedded | None, bank_name: str | None, seed: int = 0
) -> dict[str, Any]:
    """Give for JSON by correction its measures, whether it is transductive, and how far recall@1 moved."""
    before = {direction: totals_of(measured, direction) for direction in DIRECTIONS}
    report: dict[str, Any] = {}
    for name in names:
        after = reranked(measured, name, bank)
        takes_bank = RERANKERS[name].takes_bank
        change: dict[str, Any] = {}
        for direction in DIRECTIONS:
            moved = differences(before[direction], totals_of(after, direction), seed=seed)
            change[direction] = asdict(moved["recall@1"])
        result = after.result({})
        report[name] = {
            "transductive": RERANKERS[name].takes_test or (takes_bank and bank is None),
            "bank": bank_name if takes_bank else None,
            **result.measures,
            "rsum": result.rsum,
            "change": change,
        }
    return {"reranked": report}
