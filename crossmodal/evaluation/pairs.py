"""What is measured on: which pictures, which captions, and who belongs to whom."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossmodal.errors import EvaluationError, first_few

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pairs:
    """Pictures by their ids, captions, and ``image_of_text``: (M,), the row of each caption's picture.

    Captions of embeddings that came without them are empty strings.
    """

    image_ids: tuple[str, ...]
    captions: tuple[str, ...]
    image_of_text: Integers

    @classmethod
    def of(cls, image_ids: Sequence[str], captions: Sequence[Sequence[str]]) -> "Pairs":
        """Make pairs of each picture's id and its own captions.

        :raises EvaluationError: when two pictures have the same id; it names them.
        """
        twice = [key for key, count in Counter(image_ids).items() if count > 1]
        if twice:
            raise EvaluationError(
                f"{len(twice)} ids name more than one picture: {first_few(twice)}. Give each its own"
            )
        return cls(
            image_ids=tuple(image_ids),
            captions=tuple(caption for own in captions for caption in own),
            image_of_text=np.repeat(np.arange(len(image_ids)), [len(own) for own in captions]),
        )

    @property
    def texts_of_images(self) -> list[Integers]:
        """For each picture, the rows of its captions."""
        order = np.argsort(self.image_of_text, kind="stable")
        ends = np.cumsum(np.bincount(self.image_of_text, minlength=len(self.image_ids)))
        return np.split(order, ends[:-1])

    def fingerprint(self) -> str:
        """Hash the ids and captions; the same pictures and captions have the same one in any order."""
        lines = sorted(
            json.dumps([key, sorted(self.captions[row] for row in rows.tolist())])
            for key, rows in zip(self.image_ids, self.texts_of_images, strict=True)
        )
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

    def without_images(self, gone: Sequence[int]) -> "Pairs":
        """Leave out pictures by their rows, and their captions with them."""
        left = np.setdiff1d(np.arange(len(self.image_ids)), np.asarray(gone, np.int64))
        return self.subset(left)

    def subset(self, images: Integers) -> "Pairs":
        """Keep some pictures, in the order given, and their captions."""
        texts = self.texts_of_images
        return Pairs.of(
            [self.image_ids[i] for i in images],
            [[self.captions[t] for t in texts[i]] for i in images],
        )
