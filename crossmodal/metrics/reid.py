"""Person re-identification: the same person in pictures of other cameras."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from crossmodal.errors import EvaluationError
from crossmodal.metrics.counting import SCORES_PER_BLOCK, blocks
from crossmodal.metrics.retrieval import check_ranks, checked_embeddings

JUNK = -1
"""The person of pictures that Market-1501 leaves out of every gallery; 0 is nobody in particular."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReidReport:
    """``cmc``: for each k, the share of queries with their person among the first k; ``mean_ap``: mAP.

    ``unanswerable`` queries have their person in no picture of another camera, and are not asked.
    """

    queries: int
    unanswerable: int
    cmc: dict[int, float]
    mean_ap: float

    def to_dict(self) -> dict[str, float]:
        """Give the measures for JSON."""
        return {**{f"cmc@{k}": share for k, share in self.cmc.items()}, "map": self.mean_ap}


def evaluate_reid(
    queries: ArrayLike,
    gallery: ArrayLike,
    query_person: ArrayLike,
    gallery_person: ArrayLike,
    query_camera: ArrayLike,
    gallery_camera: ArrayLike,
    ks: Sequence[int] = (1, 5, 10),
) -> ReidReport:
    """Measure how well queries (Q, D) find their person in a gallery (G, D), seen by other cameras.

    Pictures of the query's person by the query's camera are left out of its gallery, and so is junk, as
    Zheng et al. do ("Scalable Person Re-identification: A Benchmark", ICCV 2015). Average precision is the
    mean of the precisions where a right picture stands. Of equal scores the wrong ones rank first.

    :raises EvaluationError: when shapes differ, values are not finite, or no query can be answered.
    """
    asking, offered = checked_embeddings(queries, gallery)
    check_ranks(ks)
    who, whose = np.asarray(query_person), np.asarray(gallery_person)
    where, whence = np.asarray(query_camera), np.asarray(gallery_camera)
    for name, given, rows in (
        ("query_person", who, len(asking)),
        ("query_camera", where, len(asking)),
        ("gallery_person", whose, len(offered)),
        ("gallery_camera", whence, len(offered)),
    ):
        if given.shape != (rows,):
            raise EvaluationError(f"{name} came as {given.shape}; give one for each of {rows} pictures")
    firsts: list[int] = []
    precisions: list[float] = []
    wide = offered.astype(np.float64)
    for some in blocks(len(asking), max(1, SCORES_PER_BLOCK // (2 * len(offered)))):
        scores = (asking[some].astype(np.float64) @ wide.T).astype(np.float32)
        for line, person, camera in zip(scores, who[some], where[some], strict=True):
            right = (whose == person) & (whence != camera)
            wrong = (whose != person) & (whose != JUNK)
            if not right.any():
                continue
            ahead = np.sort([np.count_nonzero(line[wrong] >= score) for score in line[right]])
            place = np.arange(1, len(ahead) + 1)
            firsts.append(int(ahead[0]) + 1)
            precisions.append(float(np.mean(place / (ahead + place))))
    if not firsts:
        raise EvaluationError(
            f"None of {len(asking)} queries has its person in a picture of another camera; check the numbers"
        )
    rank = np.array(firsts)
    return ReidReport(
        queries=len(rank),
        unanswerable=len(asking) - len(rank),
        cmc={k: float(np.mean(rank <= k)) for k in ks},
        mean_ap=float(np.mean(precisions)),
    )
