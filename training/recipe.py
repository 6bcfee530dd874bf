"""Recipes: all that decides a training, in one object, from TOML and from what is set besides."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from crossmodal.errors import TrainingError, unknown
from training.data.augment import AugmentSettings
from training.data.check import CheckSettings
from training.data.features import FeatureSettings
from training.data.plan import BatchSettings
from training.loop.settings import AveragingSettings, NegativeSettings, RunSettings
from training.losses.settings import LossSettings
from training.model.settings import ModelSettings, OptimiserSettings
from training.negatives.mining import MiningSettings
from training.negatives.queues import QueueSettings
from training.settings import flat, from_plain, parse_value, to_plain

RESUMABLE = ("run.epochs", "run.patience", "run.save_every", "run.trackers")
"""Keys that may differ when a run goes on: they say how long, and what is told, not what is learnt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A training configuration: each part is described where it is used."""

    model: ModelSettings = field(default_factory=ModelSettings)
    check: CheckSettings = field(default_factory=CheckSettings)
    batch: BatchSettings = field(default_factory=BatchSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    features: FeatureSettings = field(default_factory=FeatureSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    negatives: NegativeSettings = field(default_factory=NegativeSettings)
    queue: QueueSettings = field(default_factory=QueueSettings)
    mining: MiningSettings = field(default_factory=MiningSettings)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    averaging: AveragingSettings = field(default_factory=AveragingSettings)
    run: RunSettings = field(default_factory=RunSettings)

    def to_dict(self) -> dict[str, Any]:
        """Give the recipe as plain values."""
        return to_plain(self)

    def to_toml(self) -> str:
        """Write the recipe, every value spelt out."""
        return _toml(self.to_dict())


def known_recipes() -> list[str]:
    """Name the recipes that come with the program."""
    return sorted(
        path.name.removesuffix(".toml") for path in _shipped().iterdir() if path.name.endswith(".toml")
    )


def read_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe that comes with the program, or a file of one, and set some of its keys.

    :param overrides: ``key=value`` each, such as ``optimiser.lr=2e-5``.
    :raises TrainingError: when there is no such recipe, or a key or value in it is not known.
    """
    plain = _read(name)
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals:
            raise TrainingError(f"--set takes key=value, got {override!r}; such as optimiser.lr=2e-5")
        path = path.strip()
        _put(plain, path, parse_value(Recipe, path, text.strip()))
    return from_plain(Recipe, plain)


def differences(before: Recipe, now: Recipe) -> list[str]:
    """List what two recipes differ in and may not when a run goes on, as ``key: before -> now``."""
    old, new = dict(flat(before.to_dict())), dict(flat(now.to_dict()))
    return [
        f"{key}: {old.get(key, 'none')} -> {new.get(key, 'none')}"
        for key in (*old, *(key for key in new if key not in old))
        if old.get(key) != new.get(key) and key not in RESUMABLE
    ]


def _shipped() -> Any:
    return files("training") / "recipes"


def _read(name: str) -> dict[str, Any]:
    """Read the TOML of a recipe by its name or its path."""
    try:
        if name in known_recipes():
            content = (_shipped() / f"{name}.toml").read_text()
        elif name.endswith(".toml"):
            content = Path(name).expanduser().read_text()
        else:
            raise TrainingError(
                unknown("recipe", name, known_recipes()) + "; or give a file that ends in .toml"
            )
        return tomllib.loads(content)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise TrainingError(f"The recipe {name} cannot be read: {reason}") from error
    except tomllib.TOMLDecodeError as error:
        raise TrainingError(f"The recipe {name} is no TOML: {error}") from error


def _put(plain: dict[str, Any], path: str, value: Any) -> None:
    *tables, key = path.split(".")
    for table in tables:
        plain = plain.setdefault(table, {})
        if not isinstance(plain, dict):
            raise TrainingError(f"{table} in the recipe is a table, got {plain!r}; write [{table}]")
    plain[key] = value


def _toml(plain: Mapping[str, Any], path: str = "") -> str:
    """Write nested plain values: what a table holds itself first, then the tables in it."""
    lines = [f"{key} = {_literal(value)}" for key, value in plain.items() if not isinstance(value, Mapping)]
    blocks = ["\n".join([f"[{path}]", *lines] if path else lines)] if lines else []
    for key, value in plain.items():
        if isinstance(value, Mapping):
            blocks.append(_toml(value, f"{path}.{key}" if path else key).rstrip("\n"))
    return "\n\n".join(blocks) + "\n"


def _literal(value: Any) -> str:
    """Write a value; JSON writes texts, numbers, booleans and lists of them as TOML does."""
    return json.dumps(value, ensure_ascii=False) if not isinstance(value, float) else repr(value)
