"""What a model in training makes of all pictures and texts of some examples, as it stands."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from crossmodal.encoders.base import Embeddings, Pixels
from crossmodal.encoders.blueprint import Blueprint
from crossmodal.machine import usable_processors
from training.data.examples import Examples, Integers
from training.model.trainable import Trainable

AT_ONCE = 64
"""Pictures, or texts, that go through a tower at once."""

FEATURES_AT_ONCE = 4096
"""Features that go through a head at once."""


class Embedder:
    """Embeds examples in eval mode.

    :param features: of the pictures (N, ...) and of all texts (T, ...), where frozen towers made them.
    """

    def __init__(
        self, examples: Examples, blueprint: Blueprint, features: tuple[Tensor, Tensor] | None = None
    ) -> None:
        self.examples = examples
        self._blueprint = blueprint
        self._features = features

    @torch.no_grad()
    def __call__(self, model: Trainable, accelerator: Accelerator) -> tuple[Embeddings, Embeddings]:
        """Give the embeddings of the pictures (N, D), and of ``examples.texts`` (T, D).

        Of the texts, only captions are embedded; the others' rows are 0.
        """
        captions = np.unique(self.examples.captions.values)
        model.eval()
        with accelerator.autocast():
            images = _joined(self._images(model, accelerator.device))
            theirs = _joined(self._texts(model, accelerator.device, captions))
        model.train()
        texts = np.zeros((len(self.examples.texts), images.shape[1]), np.float32)
        texts[captions] = theirs
        return images, texts

    def _images(self, model: Trainable, device: torch.device) -> Iterator[Tensor]:
        if self._features is not None:
            for part in torch.split(self._features[0], FEATURES_AT_ONCE):
                yield model.project_images(part.float().to(device))
            return
        with ThreadPoolExecutor(usable_processors(), thread_name_prefix="decode") as pool:
            for start in range(0, len(self.examples), AT_ONCE):
                rows = range(start, min(start + AT_ONCE, len(self.examples)))
                pixels = np.stack(list(pool.map(self._pixels, rows)))
                yield model.encode_images(torch.from_numpy(pixels).to(device))

    def _texts(self, model: Trainable, device: torch.device, numbers: Integers) -> Iterator[Tensor]:
        if self._features is not None:
            for part in torch.split(self._features[1][torch.from_numpy(numbers)], FEATURES_AT_ONCE):
                yield model.project_texts(part.float().to(device))
            return
        texts = [self.examples.texts[number] for number in numbers]
        for start in range(0, len(texts), AT_ONCE):
            rows = [torch.tensor(ids) for ids in self._blueprint.tokenizer(texts[start : start + AT_ONCE])]
            ids = pad_sequence(rows, batch_first=True)
            mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
            yield model.encode_texts(ids.to(device), mask.to(device))

    def _pixels(self, row: int) -> Pixels:
        return self._blueprint.preprocessing(self.examples.picture(row))


def _joined(parts: Iterator[Tensor]) -> Embeddings:
    """Join embeddings, their length 1 again whatever arithmetic they come from."""
    embeddings = torch.cat([part.float() for part in parts])
    joined: Embeddings = functional.normalize(embeddings, dim=-1).cpu().numpy()
    return joined
