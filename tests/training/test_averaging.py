"""Averages of weights equal those computed by hand, whatever the tensors are."""

import copy

import pytest
import torch
from torch import nn

from crossmodal.errors import TrainingError
from training.averaging import ExponentialAverage, best_interpolation, interpolate, mean_of


class Net(nn.Module):
    """A norm with statistics and a counter, a frozen layer, and an output tied to the input."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(4, 4, bias=False)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.norm = nn.BatchNorm1d(4)
        self.out = nn.Linear(4, 4, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, x):
        return self.out(self.norm(self.frozen(self.embed(x))))


def train(model, steps, after=lambda: None):
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.02)
    for _ in range(steps):
        optimiser.zero_grad()
        model(torch.randn(8, 4)).square().mean().backward()
        optimiser.step()
        after()


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Net().train()


def copied(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_the_moving_average_equals_its_recursion_with_the_decay_warmed_up(model):
    average = ExponentialAverage(model, decay=0.5)
    history = [copied(model)]
    train(model, 20, lambda: (average.update(model), history.append(copied(model))))
    expected = {name: tensor.double() for name, tensor in history[0].items()}
    for n, weights in enumerate(history[1:], 1):
        decay = min(0.5, (1 + n) / (10 + n))
        for name, tensor in weights.items():
            if tensor.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * tensor.double()
    own = copied(model)
    with average.applied(model):
        held = copied(model)
        assert model.out.weight is model.embed.weight, "tied weights stay tied"
    for name, tensor in expected.items():
        if name == "norm.num_batches_tracked":
            assert held[name] == 20
        else:
            torch.testing.assert_close(held[name], tensor.float())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, own[name]), "the model's own weights come back"
    assert not torch.equal(held["embed.weight"], own["embed.weight"])
    assert torch.equal(held["frozen.weight"], own["frozen.weight"])


def test_the_models_own_weights_come_back_when_validation_fails(model):
    average = ExponentialAverage(model)
    train(model, 3)
    own = copied(model)
    with pytest.raises(RuntimeError, match="out of memory"), average.applied(model):
        raise RuntimeError("out of memory")
    assert all(torch.equal(tensor, own[name]) for name, tensor in model.state_dict().items())


def test_the_moving_average_goes_on_from_its_state_bit_for_bit(model):
    average = ExponentialAverage(model, decay=0.9)
    train(model, 5, lambda: average.update(model))
    other = copy.deepcopy(model)
    resumed = ExponentialAverage(other, decay=0.9)
    resumed.load_state_dict({name: tensor.clone() for name, tensor in average.state_dict().items()})
    torch.manual_seed(1)
    train(model, 5, lambda: average.update(model))
    torch.manual_seed(1)
    train(other, 5, lambda: resumed.update(other))
    assert all(
        torch.equal(tensor, resumed.state_dict()[name]) for name, tensor in average.state_dict().items()
    )
    with pytest.raises(TrainingError, match="another model"):
        ExponentialAverage(nn.Linear(2, 2)).load_state_dict(average.state_dict())


def test_small_steps_are_not_lost_in_bfloat16():
    model = nn.Linear(1, 1, bias=False).bfloat16()
    nn.init.ones_(model.weight)
    average = ExponentialAverage(model, decay=0.999)
    nn.init.constant_(model.weight, 1.0078125)
    for _ in range(20_000):
        average.update(model)
    assert average.state_dict()["weight"].item() == pytest.approx(1.0078125, abs=1e-5)


def test_the_mean_of_checkpoints_is_the_mean_of_each_tensor(model):
    states = []
    for _ in range(4):
        train(model, 2)
        states.append(copied(model))
    mean = mean_of(iter(states))
    for name, tensor in mean.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, torch.stack([state[name] for state in states]).mean(0))
        assert tensor.dtype == states[0][name].dtype
    assert mean["norm.num_batches_tracked"] == 8
    Net().load_state_dict(mean)
    with pytest.raises(TrainingError, match="no checkpoint"):
        mean_of([])
    with pytest.raises(TrainingError, match=r"another model.*1 tensors differ \(norm.bias\)"):
        mean_of([states[0], {n: t for n, t in states[1].items() if n != "norm.bias"}])


def test_interpolation_ends_at_both_weights_and_lies_between(model):
    start = copied(model)
    train(model, 5)
    tuned = copied(model)
    for alpha, expected in ((0.0, start), (1.0, tuned)):
        assert all(
            torch.equal(tensor, expected[name])
            for name, tensor in interpolate(start, tuned, alpha).items()
            if tensor.is_floating_point()
        )
    third = interpolate(start, tuned, 0.3)
    torch.testing.assert_close(
        third["embed.weight"], 0.7 * start["embed.weight"] + 0.3 * tuned["embed.weight"]
    )
    assert third["norm.num_batches_tracked"] == 5


def test_the_best_interpolation_is_the_one_that_scores_best_and_the_model_keeps_it(model):
    start = copied(model)
    train(model, 5)
    tuned = copied(model)
    goal = 0.7 * start["embed.weight"] + 0.3 * tuned["embed.weight"]
    alphas = [1.0, 0.5, 0.25, 0.0, 0.75]
    best = best_interpolation(
        model, start, alphas, lambda: -float((model.embed.weight.detach() - goal).norm())
    )
    assert best.alpha == 0.25
    assert sorted(best.scores) == sorted(alphas)
    torch.testing.assert_close(
        model.embed.weight.detach(), 0.75 * start["embed.weight"] + 0.25 * tuned["embed.weight"]
    )
    assert best_interpolation(model, start, [0.5, 0.25], lambda: 1.0).alpha == 0.25, "nearer to the start"
    assert best_interpolation(model, start, [0.5, 0.25], iter([float("nan"), 0.1]).__next__).alpha == 0.5
    with pytest.raises(TrainingError, match="No alpha"):
        best_interpolation(model, start, [], lambda: 1.0)
