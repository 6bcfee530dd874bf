"""Pictures so alike, by the model's own eyes, that one's captions must not be pushed away from the other."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossmodal.index import FaissIndex
from training.data.examples import Integers, Ragged

_QUERIES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class NearDuplicates:
    """The rows that are alike: of each row the others, ascending.

    ``crowded`` rows had so many that some may have been missed.
    """

    others: Ragged
    crowded: int

    @property
    def pairs(self) -> int:
        """How many pairs of rows are alike."""
        return len(self.others.values) // 2


def near_duplicates(
    image_embeddings: NDArray[np.float32], threshold: float, *, most: int = 64
) -> NearDuplicates:
    """Find all pairs of pictures whose score is ``threshold`` or higher.

    ``image_embeddings``: (N, D), L2-normalised. Of each picture the ``most`` nearest others are looked at.
    """
    if not -1 < threshold <= 1:
        raise ValueError(f"threshold is a cosine above -1 and at most 1, not {threshold}")
    count = len(image_embeddings)
    index = FaissIndex(image_embeddings.shape[1])
    index.add(np.arange(count), image_embeddings)
    depth = min(most + 1, count)  # the picture finds itself
    found: list[Integers] = []
    crowded = 0
    for start in range(0, count, _QUERIES):
        scores, ids = index.search(image_embeddings[start : start + _QUERIES], depth)
        alike = scores >= threshold
        crowded += int(alike[:, -1].sum()) if depth < count else 0
        rows = np.broadcast_to(np.arange(start, start + len(ids))[:, None], ids.shape)
        found.append(np.stack([rows[alike], ids[alike]]))
    first, second = np.concatenate(found, axis=1)
    both = np.concatenate([first * count + second, second * count + first])
    first, second = np.divmod(np.unique(both[np.concatenate([first != second] * 2)]), count)
    starts = np.searchsorted(first, np.arange(count + 1)).astype(np.int64)
    return NearDuplicates(others=Ragged(second, starts), crowded=crowded)
