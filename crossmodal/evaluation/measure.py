"""Embeddings under a protocol: checked, measured, and reported."""

from collections.abc import Mapping
from typing import Any

from crossmodal.evaluation.protocols import Protocol
from crossmodal.evaluation.reading import Embedded
from crossmodal.evaluation.result import Result
from crossmodal.metrics.retrieval import evaluate_retrieval


def measure(embedded: Embedded, protocol: Protocol, encoder: Mapping[str, Any]) -> Result:
    """Measure embeddings by a protocol; ``encoder`` says for the result whose they are.

    :raises EvaluationError: when they are not what the protocol measures, unless something was left out of
        them knowingly; or when they cannot be measured.
    """
    pairs = embedded.pairs
    if not embedded.left_out:
        protocol.check_counts(pairs)
    report = evaluate_retrieval(embedded.images, embedded.texts, pairs.image_of_text).to_dict()
    facts: dict[str, Any] = {
        "name": protocol.name,
        "images": len(pairs.image_ids),
        "texts": len(pairs.captions),
        "fingerprint": pairs.fingerprint(),
    }
    if embedded.left_out:
        facts["left_out"] = [list(pair) for pair in embedded.left_out]
    rsum = report.pop("rsum")
    return Result(protocol=facts, encoder=encoder, measures=report, rsum=rsum, more={})
