"""The families of twin encoders: each reads specs, restores checkpoints, and writes its library's format."""

from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from crossmodal.encoders.blueprint import Blueprint, TwinModel
from crossmodal.errors import EncoderError, unknown

_HOMES = {
    "hf": "crossmodal.encoders.hf.family",
    "lite": "crossmodal.encoders.lite.family",
    "open_clip": "crossmodal.encoders.open_clip.family",
    "towers": "crossmodal.encoders.towers.family",
}
"""The module of each family, by the part of a spec before its first colon."""


class Family(Protocol):
    """What the module of a family offers, as functions of these names."""

    def blueprint(self, rest: str) -> Blueprint:
        """Read what follows the family's name in a spec.

        :raises EncoderError: when it is unknown, cannot be read or does not fit.
        """

    def restore(self, config: dict[str, Any], folder: Path) -> Blueprint:
        """Read a checkpoint folder whose ``config.json`` says ``config``; its name is the folder's path.

        :raises EncoderError: when something in it is missing, torn or does not fit.
        """

    def export(self, model: TwinModel, blueprint: Blueprint, folder: Path) -> None:
        """Write the model as its own library would, so that the library reads it back bit for bit."""


def family(name: str) -> Family:
    """Import the module of a family.

    :raises EncoderError: when there is none of this name.
    """
    if name not in _HOMES:
        raise EncoderError(unknown("family of encoders", name, _HOMES))
    return cast(Family, import_module(_HOMES[name]))


def read_spec(name: str, rest: str) -> Blueprint:
    """Read a spec of a family. What is loaded later is what was read now, or nothing.

    :raises EncoderError: as ``Family.blueprint`` does; and from ``load``, when its files have changed since.
    """
    blueprint = family(name).blueprint(rest)
    return replace(blueprint, load=partial(_load_unchanged, name, rest, blueprint))


def _load_unchanged(name: str, rest: str, seen: Blueprint) -> TwinModel:
    if family(name).blueprint(rest).fingerprint != seen.fingerprint:
        raise EncoderError(f"{seen.name} has changed since it was opened; open it again")
    return seen.load()


def known_families() -> list[str]:
    """Name all families."""
    return sorted(_HOMES)
