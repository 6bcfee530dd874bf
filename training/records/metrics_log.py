"""The figures of a run, ``metrics.jsonl``: one JSON object a line, in the order of the steps."""

import json
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossmodal.refusals import storage_errors


class MetricsLog:
    """Appends figures to a file, each line on the disk's side as soon as it is written.

    What is no finite number is written as text, ``"nan"`` or ``"inf"``, since JSON has no number for it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, step: int, figures: Mapping[str, Any]) -> None:
        """Append the figures of a step.

        :raises StorageError: when the disk refuses.
        """
        line = json.dumps({"step": step, **{name: _plain(value) for name, value in figures.items()}})
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    def cut_back(self, step: int) -> int:
        """Drop what was written after a step, and a torn last line, so that no step comes twice on a resume.

        :returns: how many lines were dropped.
        :raises StorageError: when the disk refuses; then nothing has changed.
        """
        if not self.path.exists():
            return 0
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        kept = [line for line in lines if (entry := _parsed(line)) is not None and entry["step"] <= step]
        if len(kept) == len(lines):
            return 0
        with storage_errors(self.path), tempfile.TemporaryDirectory(dir=self.path.parent) as scratch:
            new = Path(scratch) / self.path.name
            with new.open("w", encoding="utf-8") as file:
                file.writelines(line + "\n" for line in kept)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path)
        return len(lines) - len(kept)

    def read(self) -> list[dict[str, Any]]:
        """Give all that was written, but for a torn line."""
        return read_metrics(self.path)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Give the lines of a file of figures; none where there is no file."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [entry for line in lines if (entry := _parsed(line)) is not None]


def _plain(value: Any) -> Any:
    """Give a figure as JSON has it."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _parsed(line: str) -> dict[str, Any] | None:
    """Read a line; None where it is torn."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("step"), int):
        return None
    return {name: float(value) if value in ("nan", "inf", "-inf") else value for name, value in entry.items()}
