"""Two processes against one with the whole batch: losses, and gradients as DDP averages them.

Run as a script, this file is one of the two processes.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from training.losses import LossSettings, Relation, Temperature, make_loss
from training.negatives.cached_gradients import cached_step
from training.negatives.gather import gather_pairs

PROCESSES = 2
SETTINGS = {
    "infonce": LossSettings(hn_beta=0.25),
    "siglip": LossSettings(kind="siglip"),
    "triplet": LossSettings(kind="triplet"),
}


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one process holds, or all of them together."""

    pixels: Tensor
    words: Tensor
    image_groups: Tensor
    text_groups: Tensor


class Twin(nn.Module):
    """Two linear towers and a temperature, in float64."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image, self.text = nn.Linear(6, 4).double(), nn.Linear(5, 4).double()
        self.scale = nn.Parameter(torch.tensor(8.0).double())
        self.bias = nn.Parameter(torch.tensor(-3.0).double())

    def forward(self, pixels: Tensor, words: Tensor) -> tuple[Tensor, Tensor, Temperature]:
        temperature = Temperature(self.scale * 1, self.bias * 1)
        return F.normalize(self.image(pixels), dim=1), F.normalize(self.text(words), dim=1), temperature


BATCHES = {
    # image groups and text groups of the first process, then of the second; groups lie in both
    "even": (([0, 1, 2, 3], [0, 1, 2, 2]), ([4, 0, 6, 2], [3, 4, 0, 6])),
    "uneven": (([0, 1, 2, 3, 7], [0, 1, 2, 2, -1]), ([4, 0], [3, 4, 0])),
    "one without texts": (([0, 1], [0, 1, 1, 4, 5]), ([4, 0, 5], [])),
}


def batches(name: str) -> list[Batch]:
    generator = torch.Generator().manual_seed(7)
    return [
        Batch(
            pixels=torch.randn(len(images), 6, generator=generator, dtype=torch.float64),
            words=torch.randn(len(texts), 5, generator=generator, dtype=torch.float64),
            image_groups=torch.tensor(images),
            text_groups=torch.tensor(texts, dtype=torch.int64),
        )
        for images, texts in BATCHES[name]
    ]


def whole(name: str) -> Batch:
    parts = batches(name)
    return Batch(**{field: torch.cat([getattr(p, field) for p in parts]) for field in Batch.__annotations__})


def cost(
    batch: Batch, settings: LossSettings, accelerator: Accelerator | None
) -> Callable[[Tensor, Tensor, Temperature], Tensor]:
    def gathered(images: Tensor, texts: Tensor, temperature: Temperature) -> Tensor:
        images, texts, image_groups, text_groups = gather_pairs(
            accelerator, images, texts, batch.image_groups, batch.text_groups
        )
        return make_loss(settings)(
            images, texts, Relation.from_groups(image_groups, text_groups), temperature
        )

    return gathered


def outcome(loss: Tensor, model: nn.Module) -> dict[str, Tensor]:
    return {
        "loss": loss.detach(),
        **{n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()},
    }


# -- one of the processes ---------------------------------------------------------------------------------


def work(rank: int, folder: Path) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(PROCESSES)}
    os.environ |= {"ACCELERATE_USE_CPU": "true", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=PROCESSES)
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == PROCESSES
    found: dict[str, dict[str, Tensor]] = {}
    for name in BATCHES:
        for kind, settings in SETTINGS.items():
            batch = batches(name)[rank]
            found[f"{name}, {kind}"] = with_ddp(batch, cost(batch, settings, accelerator))
            found[f"{name}, {kind}, cached"] = with_cached_gradients(
                batch, cost(batch, settings, accelerator)
            )
    found["open_clip's ClipLoss"] = with_ddp(batches("even")[rank], open_clip_loss(rank, "ClipLoss"))
    found["open_clip's SigLipLoss"] = with_ddp(batches("even")[rank], open_clip_loss(rank, "SigLipLoss"))
    found["halves"] = gathered_halves(rank, accelerator)
    tensors = {f"{case}/{name}": tensor for case, part in found.items() for name, tensor in part.items()}
    save_file(tensors, folder / f"{rank}.safetensors")
    dist.destroy_process_group()


def with_ddp(batch: Batch, loss: Callable[[Tensor, Tensor, Temperature], Tensor]) -> dict[str, Tensor]:
    model = DistributedDataParallel(Twin())
    images, texts, temperature = model(batch.pixels, batch.words)
    value = loss(images, texts, temperature)
    value = value + 0 * (temperature.scale + temperature.bias)  # DDP waits for every parameter's gradient
    value.backward()
    return outcome(value, model.module)


def with_cached_gradients(
    batch: Batch, loss: Callable[[Tensor, Tensor, Temperature], Tensor]
) -> dict[str, Tensor]:
    model = Twin()
    none = torch.zeros(0, 5).double(), torch.zeros(0, 6).double()
    value = cached_step(
        [lambda part=part: model(part, none[0])[0] for part in batch.pixels.split(2)],
        [lambda part=part: model(none[1], part)[1] for part in batch.words.split(2)],
        lambda images, texts: loss(images, texts, Temperature(model.scale, model.bias)),
    )
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        dist.all_reduce(parameter.grad)
        parameter.grad /= PROCESSES
    return outcome(value, model)


def open_clip_loss(rank: int, name: str) -> Callable[[Tensor, Tensor, Temperature], Tensor]:
    from open_clip.loss import ClipLoss, SigLipLoss

    if name == "ClipLoss":
        clip = ClipLoss(local_loss=True, gather_with_grad=True, rank=rank, world_size=PROCESSES)
        return lambda images, texts, temperature: clip(images, texts, temperature.scale)
    siglip = SigLipLoss(rank=rank, world_size=PROCESSES)
    return lambda images, texts, temperature: siglip(images, texts, temperature.scale, temperature.bias)


def gathered_halves(rank: int, accelerator: Accelerator) -> dict[str, Tensor]:
    """Gather bfloat16, whose gradients are to be added in float32."""
    rows = torch.full((2, 3), 1.0 + rank, dtype=torch.bfloat16, requires_grad=True)
    (together,) = gather_pairs(accelerator, rows)
    weights = torch.tensor([1.0, 2.0**-9])[rank]  # in bfloat16 1 and 2^-9 would add to 1
    (together.float() * weights).sum().backward()
    return {"rows": together.detach(), "gradient": rows.grad}


# -- what they found, against one process -----------------------------------------------------------------


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    folder = tmp_path_factory.mktemp("processes")
    commands = [[sys.executable, __file__, str(rank), str(folder)] for rank in range(PROCESSES)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    try:
        for process in running:
            errors = process.communicate()[1]
            assert process.returncode == 0, errors
    finally:
        for process in running:
            process.kill()
    return [load_file(folder / f"{rank}.safetensors") for rank in range(PROCESSES)]


def alone(name: str, settings: LossSettings) -> dict[str, Tensor]:
    model, batch = Twin(), whole(name)
    value = cost(batch, settings, None)(*model(batch.pixels, batch.words))
    value.backward()
    return outcome(value, model)


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("way", ["", ", cached"], ids=["ddp", "cached gradients"])
def test_two_processes_give_the_loss_and_gradients_of_one(
    found: list[dict[str, Tensor]], name: str, kind: str, way: str
) -> None:
    for part, expected in alone(name, SETTINGS[kind]).items():
        for process in found:
            torch.testing.assert_close(
                process[f"{name}, {kind}{way}/{part}"], expected.double(), rtol=1e-10, atol=1e-12
            )


@pytest.mark.parametrize(("peer", "kind"), [("ClipLoss", "infonce"), ("SigLipLoss", "siglip")])
def test_two_processes_of_open_clip_give_the_same(
    found: list[dict[str, Tensor]], peer: str, kind: str
) -> None:
    model, batch = Twin(), whole("even")
    groups = torch.arange(8)
    images, texts, temperature = model(batch.pixels, batch.words)
    value = make_loss(LossSettings(kind=kind))(
        images, texts, Relation.from_groups(groups, groups), temperature
    )
    value.backward()
    expected = outcome(value, model)
    case = f"open_clip's {peer}"
    mean_loss = sum(process[f"{case}/loss"] for process in found) / PROCESSES  # theirs is of each one's rows
    torch.testing.assert_close(mean_loss, expected.pop("loss"), rtol=1e-10, atol=1e-12)
    for part, gradient in expected.items():
        torch.testing.assert_close(found[0][f"{case}/{part}"], gradient.double(), rtol=1e-9, atol=1e-12)


def test_halves_are_gathered_as_they_are_and_their_gradients_added_in_float32(
    found: list[dict[str, Tensor]],
) -> None:
    for process in found:
        assert process["halves/rows"].tolist() == [[1.0] * 3] * 2 + [[2.0] * 3] * 2
        assert process["halves/gradient"].dtype == torch.bfloat16
        assert (process["halves/gradient"] == torch.tensor(1 + 2.0**-9).bfloat16()).all()


def test_one_process_gathers_nothing() -> None:
    rows = torch.randn(3, 2)
    assert gather_pairs(None, rows)[0] is rows


if __name__ == "__main__":
    work(int(sys.argv[1]), Path(sys.argv[2]))
