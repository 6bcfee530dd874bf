"""Cached gradients against the gradient of the whole batch at once, in train mode; what is held, counted."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.losses import LossSettings, Relation, Temperature, make_loss
from training.negatives.cached_gradients import cached_step

SIZES = (4, 4, 3)
"""Chunks of a batch of eleven."""


class Twin(nn.Module):
    """Two towers with dropout, and a temperature."""

    def __init__(self, dropout: float = 0.3, width: int = 16) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image, self.text = (
            nn.Sequential(nn.Linear(6, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, 5))
            for _ in range(2)
        )
        self.log_scale = nn.Parameter(torch.tensor(2.0))
        self.bias = nn.Parameter(torch.tensor(-1.0))

    def chunks(self, tower: nn.Module, rows: Tensor, sizes: tuple[int, ...]) -> list[Callable[[], Tensor]]:
        return [lambda part=part: F.normalize(tower(part), dim=1) for part in rows.split(sizes)]

    def loss(self, settings: LossSettings, groups: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        relation = Relation.from_groups(groups, groups)
        return lambda images, texts: make_loss(settings)(
            images, texts, relation, Temperature(self.log_scale.exp(), self.bias)
        )


def batch(dtype: torch.dtype, rows: int = sum(SIZES)) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    pixels, words = (torch.randn(rows, 6, generator=generator, dtype=dtype) for _ in range(2))
    return pixels, words, torch.arange(rows) // 2


def gradients(model: nn.Module) -> dict[str, Tensor | None]:
    return {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}


def at_once(model: Twin, rows: tuple[Tensor, Tensor, Tensor], settings: LossSettings) -> Tensor:
    """The whole batch with one graph; chance falls as it does for chunks, whose dropout masks differ."""
    pixels, words, groups = rows
    torch.manual_seed(5)
    images = torch.cat([chunk() for chunk in model.chunks(model.image, pixels, SIZES)])
    texts = torch.cat([chunk() for chunk in model.chunks(model.text, words, SIZES)])
    loss = model.loss(settings, groups)(images, texts)
    loss.backward()
    return loss.detach()


def cached(model: Twin, rows: tuple[Tensor, Tensor, Tensor], settings: LossSettings) -> Tensor:
    pixels, words, groups = rows
    torch.manual_seed(5)
    return cached_step(
        model.chunks(model.image, pixels, SIZES),
        model.chunks(model.text, words, SIZES),
        model.loss(settings, groups),
    )


@pytest.mark.parametrize("kind", ["infonce", "siglip", "infonce+triplet"])
@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_with_dropout_the_gradient_is_that_of_the_whole_batch(
    kind: str, dtype: torch.dtype, within: float
) -> None:
    settings, rows = LossSettings(kind=kind), batch(dtype)
    expected_model, model = Twin().to(dtype).train(), Twin().to(dtype).train()
    expected = at_once(expected_model, rows, settings)
    found = cached(model, rows, settings)
    torch.testing.assert_close(found, expected, rtol=within, atol=within)
    for name, gradient in gradients(expected_model).items():
        torch.testing.assert_close(gradients(model)[name], gradient, rtol=within, atol=within)


def test_chance_goes_on_as_if_each_chunk_had_run_once() -> None:
    rows = batch(torch.float64)
    draws = []
    for step in (at_once, cached):
        step(Twin().double().train(), rows, LossSettings())
        draws.append(torch.rand(3))
    torch.testing.assert_close(draws[0], draws[1], rtol=0, atol=0)


def test_gradients_add_to_those_that_are_there() -> None:
    rows, model = batch(torch.float64), Twin(dropout=0).double()
    cached(model, rows, LossSettings())
    once = gradients(model)
    cached(model, rows, LossSettings())
    for name, gradient in gradients(model).items():
        if once[name] is not None:
            torch.testing.assert_close(gradient, 2 * once[name])


def test_under_autocast_weights_get_their_gradients_too() -> None:
    rows = batch(torch.float32)
    expected_model, model = Twin(dropout=0), Twin(dropout=0)
    with torch.autocast("cpu", torch.bfloat16):
        at_once(expected_model, rows, LossSettings())
        cached(model, rows, LossSettings())
    for name, gradient in gradients(expected_model).items():
        if gradient is not None:
            assert gradients(model)[name] is not None, name
            torch.testing.assert_close(gradients(model)[name], gradient, rtol=0.02, atol=2e-3)


def test_a_locked_tower_gets_no_gradient_and_runs_once_but_for_the_chunk_that_tells() -> None:
    pixels, words, groups = batch(torch.float64)
    model = Twin().double()
    model.image.requires_grad_(False)
    runs = []
    model.image.register_forward_hook(lambda *_: runs.append(torch.is_grad_enabled()))
    cached(model, (pixels, words, groups), LossSettings())
    assert runs == [False] * len(SIZES) + [True]
    assert all(p.grad is None for p in model.image.parameters())
    assert all(p.grad is not None for p in model.text.parameters())


@pytest.mark.parametrize("rows", [32, 256])
def test_what_is_held_for_the_backward_pass_does_not_grow_with_the_batch(rows: int) -> None:
    """Counted: the most bytes that graphs hold at one time, which is what a chunk's graph holds."""
    model = Twin(width=4096)
    pixels, words, groups = batch(torch.float32, rows)
    with Held() as whole:
        images, texts = (
            model.chunks(tower, side, (rows,))[0]()
            for tower, side in ((model.image, pixels), (model.text, words))
        )
        model.loss(LossSettings(), groups)(images, texts).backward()
    del images, texts
    sizes = (8,) * (rows // 8)
    with Held() as chunked:
        cached_step(
            model.chunks(model.image, pixels, sizes),
            model.chunks(model.text, words, sizes),
            model.loss(LossSettings(), groups),
        )
    one_chunk = 8 * 4096 * 4
    assert whole.most > 2 * rows * 4096 * 4
    assert chunked.most < 6 * one_chunk + 40 * rows * rows


class Held:
    """Counts the bytes that autograd keeps for backward passes."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def __enter__(self) -> "Held":
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda kept: kept.tensor)
        self.hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.hooks.__exit__(*error)

    def _pack(self, tensor: Tensor) -> "Kept":
        return Kept(self, tensor)


class Kept:
    """A tensor that autograd keeps, as long as it does."""

    def __init__(self, held: Held, tensor: Tensor) -> None:
        self.held, self.tensor = held, tensor
        held.now += tensor.nbytes
        held.most = max(held.most, held.now)

    def __del__(self) -> None:
        self.held.now -= self.tensor.nbytes
