"""Averages of weights in a run: what is validated and kept in the place of the weights of the last step."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from crossmodal.refusals import storage_errors
from training.averaging import ExponentialAverage, interpolate, mean_of
from training.loop.settings import AveragingSettings
from training.model.trainable import Trainable


class Averages:
    """The moving average of a model, its weights at the last validations, and mixtures with its first ones.

    :param folder: where weights at validations are kept.
    """

    def __init__(self, model: Trainable, settings: AveragingSettings, folder: Path) -> None:
        self._model = model
        self._settings = settings
        self._folder = folder
        self._moving = ExponentialAverage(model, settings.ema) if settings.ema else None
        self._start = _copy(model.state()) if settings.wise_ft else {}

    def after_step(self) -> None:
        """Take in the weights after a step."""
        if self._moving is not None:
            self._moving.update(self._model)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Have the model hold what is to be validated and kept, for a while."""
        with self._moving.applied(self._model) if self._moving is not None else contextlib.nullcontext():
            yield

    def keep(self, step: int) -> None:
        """Keep the weights of a validation, as long as they are among the last.

        :raises StorageError: when the disk refuses.
        """
        if not self._settings.swa:
            return
        with storage_errors(self._folder):
            self._folder.mkdir(exist_ok=True)
            _save(self._model.state(), self._folder / f"{step:012}.safetensors")
            for old in self._kept(step)[: -self._settings.swa]:
                old.unlink()

    def candidates(self, step: int) -> Iterator[str]:
        """Have the model hold, one after another, what may be better than its weights; each is named."""
        own = _copy(self._model.state())
        if self._settings.swa:
            self._model.load_state(mean_of(load_file(path) for path in self._kept(step)))
            yield f"the mean of {len(self._kept(step))} validated weights"
            self._model.load_state(own)
        with self.applied():
            tuned = _copy(self._model.state())
        for alpha in self._settings.wise_ft:
            self._model.load_state(interpolate(self._start, tuned, alpha))
            yield f"{alpha:g} of what was learnt, and {1 - alpha:g} of the start"
        self._model.load_state(own)

    def state(self) -> dict[str, Tensor]:
        """Give all that is remembered, as tensors."""
        return {} if self._moving is None else self._moving.state_dict()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back what ``state`` gave."""
        if self._moving is not None:
            self._moving.load_state_dict(state)

    def _kept(self, step: int) -> list[Path]:
        """List the weights of validations up to a step; a run that was killed may have left later ones."""
        return [path for path in sorted(self._folder.glob("*.safetensors")) if int(path.stem) <= step]


def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def _save(state: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors at once or not at all.

    :raises OSError: when the disk refuses.
    """
    beside = path.with_suffix(".new")
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, beside)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    beside.replace(path)
