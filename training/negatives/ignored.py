"""Pairs of a batch that are neither pulled nor pushed: texts that fit, though of another group."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.data.examples import Examples, Integers, Ragged
from training.data.plan import NO_OWNER
from training.negatives.near_duplicates import NearDuplicates


class IgnoredPairs:
    """Knows which texts must not be taken for negatives of a picture although they are of another group.

    These are texts equal to one of the picture's own captions, and the captions of near-duplicates of it.
    """

    def __init__(self, examples: Examples, alike: NearDuplicates | None = None) -> None:
        self._examples = examples
        self._alike = alike

    def mask(self, image_rows: Tensor, text_rows: Tensor, text_numbers: Tensor) -> Tensor:
        """Say which pairs of N pictures and M texts are ignored: bool (N, M), on the device of the rows.

        ``image_rows``: (N,) and ``text_rows``: (M,) rows of the examples, -1 for a text of none;
        ``text_numbers``: (M,) numbers of ``Examples.texts``. They are those of a ``Batch``, or of several, or
        of what queues remember.
        """
        images, owners, numbers = (t.cpu().numpy() for t in (image_rows, text_rows, text_numbers))
        ignored = _meetings(self._examples.captions, images, numbers)
        if self._alike is not None:
            ignored |= _meetings(self._alike.others, images, owners)
        groups = self._examples.groups
        text_groups = np.where(owners == NO_OWNER, NO_OWNER, groups[owners])
        ignored &= groups[images][:, None] != text_groups
        return torch.from_numpy(ignored).to(image_rows.device)


def _meetings(lists: Ragged, rows: Integers, wanted: Integers) -> NDArray[np.bool_]:
    """Say which of M wanted values are in the lists of N rows: (N, M)."""
    distinct, column = np.unique(wanted, return_inverse=True)
    values, places = lists.gather(rows)
    there = np.isin(values, distinct)
    met = np.zeros((len(rows), len(distinct)), np.bool_)
    met[places[there], np.searchsorted(distinct, values[there])] = True
    return met[:, column]
