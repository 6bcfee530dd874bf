"""Retrieval in one direction, by judgements: any number of items is relevant to each query."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crossmodal.errors import EvaluationError
from crossmodal.metrics.counting import SCORES_PER_BLOCK, Integers, blocks
from crossmodal.metrics.measures import DirectionReport, measure_pairs
from crossmodal.metrics.retrieval import check_ranks, checked_embeddings


def evaluate_judged(
    queries: ArrayLike,
    gallery: ArrayLike,
    relevant: Sequence[NDArray[np.integer]],
    ks: Sequence[int] = (1, 5, 10),
) -> DirectionReport:
    """Measure how well queries find what was judged relevant to them; ties rank what is irrelevant first.

    ``queries``: (Q, D) and ``gallery``: (G, D), floats. ``relevant``: for each query the rows of the gallery
    that are; a query without any is not asked. A row of -1 is relevant and not in the gallery: it counts, and
    is never found.

    :raises EvaluationError: when shapes do not fit, values are not finite, or no query has anything relevant.
    """
    asking, offered = checked_embeddings(queries, gallery)
    check_ranks(ks)
    asked = np.array([row for row, rows in enumerate(relevant) if len(rows)], np.int64)
    if not len(asked):
        raise EvaluationError(
            f"None of {len(asking)} queries has anything relevant; give judgements for some."
        )
    wide = offered.astype(np.float64)
    ahead: list[Integers] = []
    for some in blocks(len(asked), max(1, SCORES_PER_BLOCK // (2 * len(offered)))):
        scores = (asking[asked[some]].astype(np.float64) @ wide.T).astype(np.float32)
        for line, query in zip(scores, asked[some], strict=True):
            there = relevant[query][relevant[query] >= 0]
            own = line[there]
            line[there] = -np.inf
            counts = [np.count_nonzero(line >= score) for score in own]
            ahead.append(np.array(counts + [len(offered)] * (len(relevant[query]) - len(there))))
    numbers = np.repeat(asked, [len(relevant[query]) for query in asked])
    return measure_pairs(numbers, np.concatenate(ahead), ks)
