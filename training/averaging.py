"""Averages of weights: over steps (EMA), over checkpoints (SWA), with those at the start (WiSE-FT)."""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from crossmodal.errors import TrainingError, first_few

State = Mapping[str, Tensor]


class ExponentialAverage:
    """The moving average of a model's weights: ``decay`` of what it was, and the rest of what the model is.

    The decay warms up as ``(1 + n) / (10 + n)`` over the updates ``n``, so that early weights are soon
    forgotten. Averages are float32 at least; tied weights are averaged once. Buffers of floats, such as the
    statistics of norms, are averaged, whole numbers copied. Frozen parameters stay the model's own.
    """

    def __init__(self, model: nn.Module, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay is from 0 to below 1, not {decay}")
        self.decay = decay
        self.updates = 0
        self._averages = {name: _wide(tensor) for name, tensor in _changing(model)}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights after a step."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, tensor in _changing(model):
            average = self._averages[name]
            if average.is_floating_point():
                average.lerp_(tensor.to(average), 1 - decay)
            else:
                average.copy_(tensor)

    @contextlib.contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Have the model hold the averages, to be validated or saved; its own weights come back after."""
        own = {name: tensor.detach().clone() for name, tensor in _changing(model)}
        _put(model, self._averages)
        try:
            yield
        finally:
            _put(model, own)

    def state_dict(self) -> dict[str, Tensor]:
        """Give all it takes to go on, as tensors."""
        return {**self._averages, "updates": torch.tensor(self.updates)}

    def load_state_dict(self, state: State) -> None:
        """Go on from a state.

        :raises TrainingError: when it is of another model.
        """
        _refuse_others(self.state_dict(), state, "the moving average")
        for name, average in self._averages.items():
            average.copy_(state[name])
        self.updates = int(state["updates"])


def mean_of(states: Iterable[State]) -> dict[str, Tensor]:
    """Give the mean of some state dicts, of which two are in memory at a time; whole numbers are the last's.

    Izmailov et al. 2018, https://arxiv.org/abs/1803.05407. Where a model has batch norms whose statistics
    must be exact for the mean, run ``torch.optim.swa_utils.update_bn`` with it.

    :raises TrainingError: when there is none, or they are of different models.
    """
    sums: dict[str, Tensor] = {}
    last: State = {}
    count = 0
    for count, state in enumerate(states, 1):  # noqa: B007  # counted for what comes after
        if not sums:
            sums = {name: _widest(tensor).zero_() for name, tensor in state.items() if _is_float(tensor)}
        else:
            _refuse_others(last, state, "a checkpoint")
        for name, total in sums.items():
            total += state[name]
        last = state
    if not count:
        raise TrainingError("There is no checkpoint to average; save some first")
    return {
        name: (sums[name] / count).to(tensor.dtype) if name in sums else tensor.clone()
        for name, tensor in last.items()
    }


def interpolate(start: State, tuned: State, alpha: float) -> dict[str, Tensor]:
    """Give ``(1 - alpha) * start + alpha * tuned``; whole numbers are the tuned ones.

    Wortsman et al. 2022, https://arxiv.org/abs/2109.01903.

    :raises TrainingError: when the two are of different models.
    """
    _refuse_others(start, tuned, "the tuned weights")
    return {
        name: torch.lerp(_widest(start[name]), _widest(tensor), alpha).to(tensor.dtype)
        if _is_float(tensor)
        else tensor.clone()
        for name, tensor in tuned.items()
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpolated:
    """The interpolation that scored best, and what each scored."""

    alpha: float
    scores: dict[float, float]


def best_interpolation(
    model: nn.Module, start: State, alphas: Sequence[float], score: Callable[[], float]
) -> Interpolated:
    """Leave the model with the best interpolation of its weights and those it started from.

    :param score: measures the model as it is, on validation data; higher is better. Of equals the smaller
        alpha wins, which is nearer to the start.
    :raises TrainingError: when the start is of another model, or no alpha is given.
    """
    if not alphas:
        raise TrainingError("No alpha is given to interpolate with; give some from 0 to 1")
    tuned = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    scores = {}
    for alpha in sorted(set(alphas)):
        model.load_state_dict(interpolate(start, tuned, alpha))
        scores[alpha] = score()
    best = max(scores, key=lambda alpha: -math.inf if math.isnan(scores[alpha]) else scores[alpha])
    model.load_state_dict(interpolate(start, tuned, best))
    return Interpolated(alpha=best, scores=scores)


def _changing(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Give what training changes in a model: parameters that are not frozen, and buffers; each once."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            yield name, parameter
    yield from model.named_buffers()


@torch.no_grad()
def _put(model: nn.Module, values: State) -> None:
    for name, tensor in _changing(model):
        tensor.copy_(values[name])


def _is_float(tensor: Tensor) -> bool:
    return tensor.is_floating_point()


def _wide(tensor: Tensor) -> Tensor:
    """Give a copy in float32 at least, for small steps would be lost in less."""
    copy = tensor.detach().clone()
    return copy.float() if tensor.dtype in (torch.float16, torch.bfloat16) else copy


def _widest(tensor: Tensor) -> Tensor:
    return tensor.detach().to(torch.float64, copy=True)


def _refuse_others(expected: State, seen: State, what: str) -> None:
    """Raise when tensors differ in name or shape."""
    wrong = sorted(expected.keys() ^ seen.keys()) or [
        name for name in expected if expected[name].shape != seen[name].shape
    ]
    if wrong:
        raise TrainingError(f"{what} is of another model: {len(wrong)} tensors differ ({first_few(wrong)})")
