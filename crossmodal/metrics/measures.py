"""The measures of one direction of retrieval, from where its relevant items rank."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Numbers = NDArray[np.float64]

NDCG_DEPTH = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class PerQuery:
    """What each query contributes, all (Q,): ``query`` are the queries' numbers, in rising order.

    ``rank`` is that of the first relevant item, from 1, and ``relevant`` the number of relevant items;
    ``found`` has for each k how many of them are among the first k.
    """

    query: Integers
    rank: Integers
    relevant: Integers
    found: dict[int, Integers]
    map_at_r: Numbers
    r_precision: Numbers
    ndcg_at_10: Numbers

    def values(self) -> dict[str, Numbers]:
        """Give the measures whose mean is reported, by their names in JSON; a recall is 0 or 1 here."""
        return {f"recall@{k}": (count > 0).astype(np.float64) for k, count in self.found.items()} | {
            "mean_rank": self.rank.astype(np.float64),
            "mrr": 1 / self.rank,
            "map@r": self.map_at_r,
            "r_precision": self.r_precision,
            "ndcg@10": self.ndcg_at_10,
        }

    def extra_values(self) -> dict[str, Numbers]:
        """Give, for each k, what a recall of any one hit leaves open.

        ``precision@k`` is the share of the first k that are relevant, and ``true_recall@k`` the share of the
        relevant items that are among the first k: with five captions of a picture it is at most 0.2 for k of
        1, where ``recall@1`` may be 1.
        """
        precision = {f"precision@{k}": count / k for k, count in self.found.items()}
        return precision | {f"true_recall@{k}": count / self.relevant for k, count in self.found.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectionReport:
    """One direction's measures, each the mean over its queries (``median_rank``: the median).

    ``recall``: for each k, the share of queries with a relevant item among the first k. Ranks are those of
    the first relevant item, from 1; ``mrr`` is the mean of one over it. ``map_at_r`` and ``r_precision`` look
    at the first R, R being the number of relevant items, and divide by R (Musgrave et al., "A Metric Learning
    Reality Check", ECCV 2020). ``ndcg_at_10`` has a gain of 1 for each relevant item.
    """

    queries: int
    recall: dict[int, float]
    median_rank: float
    mean_rank: float
    mrr: float
    map_at_r: float
    r_precision: float
    ndcg_at_10: float
    per_query: PerQuery = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, float]:
        """Give the measures for JSON, recalls as ``recall@k``; all shares are fractions."""
        return {f"recall@{k}": share for k, share in self.recall.items()} | {
            "median_rank": self.median_rank,
            "mean_rank": self.mean_rank,
            "mrr": self.mrr,
            "map@r": self.map_at_r,
            "r_precision": self.r_precision,
            "ndcg@10": self.ndcg_at_10,
        }


def measure_pairs(query: Integers, ahead: Integers, ks: Sequence[int]) -> DirectionReport:
    """Measure one direction from its relevant pairs.

    ``query``: (P,), the query each pair belongs to. ``ahead``: (P,), how many irrelevant items rank before
    it. The higher a pair's score, the fewer are ahead, so these counts order a query's pairs as scores would.
    """
    per_query = _per_query(query, ahead, ks)
    values = per_query.values()
    return DirectionReport(
        queries=len(per_query.query),
        recall={k: float(values[f"recall@{k}"].mean()) for k in ks},
        median_rank=float(np.median(per_query.rank)),
        mean_rank=float(values["mean_rank"].mean()),
        mrr=float(values["mrr"].mean()),
        map_at_r=float(values["map@r"].mean()),
        r_precision=float(values["r_precision"].mean()),
        ndcg_at_10=float(values["ndcg@10"].mean()),
        per_query=per_query,
    )


def _per_query(query: Integers, ahead: Integers, ks: Sequence[int]) -> PerQuery:
    order = np.lexsort((ahead, query))
    queries, start, relevant = np.unique(query[order], return_index=True, return_counts=True)
    place = np.arange(len(order)) - np.repeat(start, relevant) + 1
    rank = ahead[order] + place
    within_r = rank <= np.repeat(relevant, relevant)
    gain = np.where(rank <= NDCG_DEPTH, 1 / np.log2(rank + 1), 0)
    ideal = np.cumsum(1 / np.log2(np.arange(2, NDCG_DEPTH + 2)))[np.minimum(relevant, NDCG_DEPTH) - 1]
    return PerQuery(
        query=queries,
        rank=rank[start],
        relevant=relevant,
        found={k: np.add.reduceat(rank <= k, start, dtype=np.int64) for k in ks},
        map_at_r=np.add.reduceat(np.where(within_r, place / rank, 0), start) / relevant,
        r_precision=np.add.reduceat(within_r, start, dtype=np.int64) / relevant,
        ndcg_at_10=np.add.reduceat(gain, start) / ideal,
    )
