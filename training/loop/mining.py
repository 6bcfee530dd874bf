"""Hard negatives in a run: mined again every so many steps, by the model as it stands."""

from collections.abc import Mapping

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor

from training.loop.embedding import Embedder
from training.model.trainable import Trainable
from training.negatives.mining import HardNegatives, MiningSettings, mine


class Miner:
    """Mines the training examples when it is time; the first process does, and the others are told.

    :param embedder: of the training examples.
    """

    def __init__(
        self, model: Trainable, embedder: Embedder, settings: MiningSettings, accelerator: Accelerator
    ) -> None:
        self.negatives: HardNegatives | None = None
        self._model = model
        self._embedder = embedder
        self._settings = settings
        self._accelerator = accelerator

    def mine(self, step: int) -> bool:
        """Mine if it is time before this step, and tell whether there are new negatives."""
        if not self._settings.due(step):
            return False
        found = None
        if self._accelerator.is_main_process:
            images, texts = self._embedder(self._model, self._accelerator)
            found = mine(self._embedder.examples, images, texts, self._settings)
        [self.negatives] = broadcast_object_list([found])
        return True

    def state(self) -> dict[str, Tensor]:
        """Give the negatives in use, as tensors."""
        if self.negatives is None:
            return {}
        names = ("texts", "owners", "images")
        return {name: torch.from_numpy(getattr(self.negatives, name)) for name in names}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back what ``state`` gave."""
        if state:
            self.negatives = HardNegatives(**{name: tensor.numpy() for name, tensor in state.items()})
