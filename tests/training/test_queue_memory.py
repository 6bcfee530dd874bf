"""What queues take: the elements of the largest tensor, counted for two sizes of queue."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from training.losses import LossSettings, Temperature, make_loss
from training.negatives.queues import PairQueues, QueueSettings


def unit(rows: int, seed: int, dim: int = 4) -> Tensor:
    return F.normalize(torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


class Largest(TorchDispatchMode):
    """Notes how many elements the largest tensor has that anything makes, also backwards."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else [made]:
            if isinstance(one, Tensor):
                self.elements = max(self.elements, one.numel())
        return made


@pytest.mark.parametrize(
    "settings",
    [
        LossSettings(),
        LossSettings(label_smoothing=0.1),
        LossSettings(hn_beta=0.5),
        LossSettings(kind="siglip"),
        LossSettings(kind="triplet"),
        LossSettings(kind="triplet", mean_hinge_steps=10),
        LossSettings(kind="infonce+triplet"),
    ],
    ids=lambda s: f"{s.kind} {s.label_smoothing} {s.hn_beta} {s.mean_hinge_steps}",
)
@pytest.mark.parametrize("groups", [1, 3, 1000], ids=lambda n: f"{n} groups")
def test_no_tensor_grows_with_the_square_of_the_queue(settings: LossSettings, groups: int) -> None:
    batch, dim = 5, 4
    loss, temperature = make_loss(settings), Temperature(torch.tensor(5.0), torch.tensor(-2.0))

    def largest(size: int) -> int:
        queues = PairQueues(QueueSettings(size=size), dim, mask=lambda i, t, n: i[:, None] == n)
        rows = torch.arange(size) % groups
        queues.push(unit(size, 1), unit(size, 2), rows, rows, origins=(rows, rows, rows + 1))
        images, texts = unit(batch, 3).requires_grad_(), unit(batch, 4).requires_grad_()
        new = torch.arange(batch) % groups
        origins = (new, new, new + 1)
        with Largest() as seen:
            related = queues.relate(images, texts, new, new, step=0, origins=origins)
            loss(*related, temperature).backward()
            queues.push(images, texts, new, new, origins=origins)
            queues.load_state(queues.state())
        return seen.elements

    assert largest(200) > batch * 200  # what is counted is there
    assert largest(200) <= 2 * (batch + 1) * (batch + 200)  # places of positives are two numbers each
    assert largest(800) <= 4 * largest(200)
