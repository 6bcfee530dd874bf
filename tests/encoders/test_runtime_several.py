"""A tower on several devices, with devices that are made up: order, fairness, failure, and one copy each."""

import copy
import threading

import numpy as np
import pytest
import torch
from torch import nn

from crossmodal.encoders import runtime
from crossmodal.encoders.runtime import InputSpec, Runner, Tower, Way, run_tower
from crossmodal.encoders.runtime.several import SeveralRunners

DIM = 3


class Device(Runner):
    """Says of each picture what it shows; ``together`` holds a first call until all are at work."""

    backend = "fake"
    most_rows = 8

    def __init__(self, tower, device, together=None):
        super().__init__(tower)
        self.device = device
        self.together = together
        self.threads = set()
        self.asked = []

    def __call__(self, batches):
        if self.together and not self.asked:
            self.together.wait(timeout=60)
        self.threads.add(threading.get_ident())
        self.asked += [len(inputs[0]) for inputs in batches]
        return [np.repeat(inputs[0][:, 0, 0, :1], DIM, 1).astype(np.float32) for inputs in batches]


@pytest.fixture
def tower():
    inputs = (InputSpec("uint8", (None, 4, 4, 3)),)
    return Tower(encoder="t", modality="image", fingerprint="f", dim=DIM, inputs=inputs, build=nn.Identity)


@pytest.fixture
def pictures():
    return np.arange(100, dtype=np.uint8)[:, None, None, None].repeat(4, 1).repeat(4, 2).repeat(3, 3)


def test_every_device_works_in_a_thread_of_its_own_and_the_order_is_kept(tower, pictures):
    together = threading.Barrier(3)
    made = []

    def make(part, device):
        made.append(Device(part, device, together))
        return made[-1]

    run = SeveralRunners(tower, make, ["a", "b", "c"])
    results = run([(pictures,), (pictures[:0],), (pictures[:7],)])
    for result, inputs in zip(results, [pictures, pictures[:0], pictures[:7]], strict=True):
        np.testing.assert_array_equal(result, inputs[:, 0, 0, :1].astype(np.float32).repeat(DIM, 1))
    assert all(device.asked and max(device.asked) <= Device.most_rows for device in made)
    assert all(len(device.threads) == 1 for device in made)
    assert len(set.union(*(device.threads for device in made))) == 3
    assert sum(sum(device.asked) for device in made) == 107
    assert (run.most_rows, run.device, run.backend) == (24, "a, b, c", "fake")


def test_a_small_batch_is_shared_out(tower, pictures):
    together = threading.Barrier(2)
    run = SeveralRunners(tower, lambda part, device: Device(part, device, together), ["a", "b"])
    run([(pictures[:6],)])
    assert [runner.asked for runner in run._runners] == [[3], [3]]


def test_what_fails_on_one_device_fails_for_the_caller(tower, pictures):
    together = threading.Barrier(2)

    class Broken(Device):
        def __call__(self, batches):
            self.together.wait(timeout=60)
            raise RuntimeError("device b fell off the bus")

    run = SeveralRunners(
        tower,
        lambda part, device: (Broken if device == "b" else Device)(part, device, together),
        ["a", "b"],
    )
    with pytest.raises(RuntimeError, match="fell off the bus"):
        run([(pictures,)])


def test_one_thread_at_a_time_builds(tower, pictures):
    building = []

    def build():
        building.append(1)
        assert len(building) == 1
        threading.Event().wait(0.01)
        building.pop()
        return nn.Identity()

    class Builds(Device):
        def __call__(self, batches):
            self.tower.build()
            return super().__call__(batches)

    slow = Tower(encoder="t", modality="image", fingerprint="f", dim=DIM, inputs=tower.inputs, build=build)
    together = threading.Barrier(4)
    run = SeveralRunners(slow, lambda part, device: Builds(part, device, together), list("abcd"))
    assert run([(pictures,)])[0].shape == (100, DIM)


def test_torch_takes_all_devices_there_are(monkeypatch, tower):
    monkeypatch.setattr(runtime, "devices", lambda: ["cpu:0", "cpu:1"])

    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.project = nn.Linear(3, DIM)

        def forward(self, pixels):
            return nn.functional.normalize(self.project(pixels.float().mean((1, 2))), dim=-1)

    torch.manual_seed(0)
    module = Mean()
    pictures = np.random.default_rng(0).integers(0, 256, (90, 4, 4, 3), np.uint8)
    several = Tower(
        encoder="t",
        modality="image",
        fingerprint="f",
        dim=DIM,
        inputs=tower.inputs,
        build=lambda: copy.deepcopy(module),  # one for each device: two that move one module tear it
    )
    run = run_tower(several, Way(backend="torch"))
    assert isinstance(run, SeveralRunners)
    with torch.no_grad():
        expected = module(torch.from_numpy(pictures)).numpy()
    np.testing.assert_allclose(run([(pictures,)])[0], expected, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="not run: fewer than two NVIDIA GPUs here")
def test_two_gpus_give_what_the_processor_gives(tower):
    from crossmodal.encoders.runtime.choice import devices

    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, DIM))

    class Floats(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = module

        def forward(self, pixels):
            return nn.functional.normalize(self.inner(pixels.float()), dim=-1)

    several = Tower(
        encoder="t",
        modality="image",
        fingerprint="f",
        dim=DIM,
        inputs=tower.inputs,
        build=lambda: copy.deepcopy(Floats()),
    )
    pictures = np.random.default_rng(0).integers(0, 256, (900, 4, 4, 3), np.uint8)
    run = run_tower(several, Way(backend="torch"))
    assert len(devices()) == torch.cuda.device_count()
    with torch.no_grad():
        expected = Floats()(torch.from_numpy(pictures)).numpy()
    np.testing.assert_allclose(run([(pictures,)])[0], expected, atol=2e-6)
