"""A result: what was measured, with which encoder, and what came out; and its JSON."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossmodal.errors import EvaluationError

Measures = dict[str, float]
DIRECTIONS = ("text_to_image", "image_to_text")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One encoder under one protocol.

    ``protocol``: name, images, texts, fingerprint, and what was missing where that was allowed. ``measures``:
    by direction, then by name. ``more`` is for what was asked for beyond the contract.
    """

    protocol: Mapping[str, Any]
    encoder: Mapping[str, Any]
    measures: Mapping[str, Measures]
    rsum: float
    more: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Give all of it for JSON."""
        return {
            "protocol": dict(self.protocol),
            "encoder": dict(self.encoder),
            **{direction: dict(self.measures[direction]) for direction in DIRECTIONS},
            "rsum": self.rsum,
            **self.more,
        }

    def write(self, path: Path) -> None:
        """Write the JSON to a file, whole or not at all."""
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        part.replace(path)

    @classmethod
    def read(cls, path: Path) -> "Result":
        """Read what ``write`` wrote.

        :raises EvaluationError: when the file is no result.
        """
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            known = {"protocol", "encoder", *DIRECTIONS, "rsum"}
            return cls(
                protocol=_object(document["protocol"]),
                encoder=_object(document["encoder"]),
                measures={direction: _object(document[direction]) for direction in DIRECTIONS},
                rsum=float(document["rsum"]),
                more={name: value for name, value in document.items() if name not in known},
            )
        except FileNotFoundError:
            raise EvaluationError(f"No such file: {path}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise EvaluationError(
                f"{path} is no result of 'crossmodal evaluate': {type(error).__name__} {error}"
            ) from error


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, seen {type(value).__name__}")
    return value
