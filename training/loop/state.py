"""What it takes to go on as if nothing had happened: kept beside the last checkpoint, without a pickle.

======================  ================================================================================
trainer.json            ``format``, ``progress``, ``recipe``, the ``encoder`` that training began with, and
                        the number of ``processes``
trainer.safetensors     ``model.*``, all that training changes, as it is and not as the checkpoint has it
                        (averaged, or adapters merged); ``optimiser.MOMENT.*``; and the tensors of whatever
                        else remembers something
======================  ================================================================================

Random states are not kept: each step, and each view of a picture, draws from one of its own.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crossmodal.errors import TrainingError
from training.model.trainable import Trainable

FORMAT = 1
FACTS = "trainer.json"
TENSORS = "trainer.safetensors"
STEP = "step"
"""AdamW's own count of steps, for each parameter."""


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far a run has come.

    ``best`` is the rSum of the best model, ``stale`` how many validations were since. ``finished``: averages
    have been tried, too.
    """

    step: int = 0
    best: float | None = None
    best_step: int = 0
    stale: int = 0
    finished: bool = False
    seconds: float = 0.0


@dataclass(slots=True, kw_only=True)
class Saved:
    """A state as it was read."""

    progress: Progress
    recipe: dict[str, Any]
    encoder: dict[str, str]
    processes: int
    tensors: dict[str, Tensor] = field(repr=False)

    def part(self, name: str) -> dict[str, Tensor]:
        """Give the tensors that begin with a name, without it."""
        prefix = f"{name}."
        return {key.removeprefix(prefix): t for key, t in self.tensors.items() if key.startswith(prefix)}


def write_state(
    folder: Path,
    *,
    progress: Progress,
    recipe: Mapping[str, Any],
    encoder: Mapping[str, str],
    processes: int,
    parts: Mapping[str, Mapping[str, Tensor]],
) -> None:
    """Write a state into a folder.

    :param parts: tensors by the name of the part that they are of.
    :raises OSError: when the disk refuses; safetensors has an error of its own for it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {
        f"{part}.{name}": tensor.detach().cpu().contiguous()
        for part, named in parts.items()
        for name, tensor in named.items()
    }
    facts = {
        "format": FORMAT,
        "progress": asdict(progress),
        "recipe": dict(recipe),
        "encoder": dict(encoder),
        "processes": processes,
    }
    try:
        save_file(tensors, folder / TENSORS)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    (folder / FACTS).write_text(json.dumps(facts, indent=2) + "\n")


def has_state(folder: Path) -> bool:
    """Tell whether a folder holds a state to go on from."""
    return (folder / FACTS).is_file()


def read_state(folder: Path) -> Saved:
    """Read what ``write_state`` wrote.

    :raises TrainingError: when it is torn, or of a newer version.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        facts = json.loads((folder / FACTS).read_bytes())
        if facts["format"] > FORMAT:
            raise TrainingError(
                f"{folder} was written by a newer version of crossmodal-retrieval: "
                "pip install --upgrade crossmodal-retrieval"
            )
        return Saved(
            progress=Progress(**facts["progress"]),
            recipe=facts["recipe"],
            encoder=facts["encoder"],
            processes=facts["processes"],
            tensors=load_file(folder / TENSORS),
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        if isinstance(error, TrainingError):
            raise
        reason = " ".join(str(error).split())
        raise TrainingError(
            f"The state of training in {folder} is torn ({type(error).__name__}: {reason:.120}); "
            "begin again in a new folder, or copy this one again"
        ) from error


def moments(model: Trainable, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Give what an optimiser remembers of each parameter, as ``MOMENT.PARAMETER``."""
    return {
        f"{moment}.{name}": value
        for name, parameter in model.trained().items()
        for moment, value in optimiser.state.get(parameter, {}).items()
    }


def restore_moments(model: Trainable, optimiser: torch.optim.Optimizer, saved: Mapping[str, Tensor]) -> None:
    """Give back to an optimiser what ``moments`` gave."""
    parameters = model.trained()
    for key, value in saved.items():
        moment, _, name = key.partition(".")
        parameter = parameters[name]
        fused = optimiser.param_groups[0].get("fused")
        device = parameter.device if moment != STEP or fused else torch.device("cpu")
        optimiser.state[parameter][moment] = value.to(device)
