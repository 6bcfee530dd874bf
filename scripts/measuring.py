"""What the bench scripts share: on which machine, how many a second, and how far the rounds lie apart."""

import os
import platform
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

from crossmodal.machine import usable_processors

T = TypeVar("T")
Rates = dict[str, list[float]]
"""Things a second in each round, by what was measured."""


def machine(*packages: str) -> str:
    """Say what this was measured on: processor, load, system, and the versions of packages that are there.

    The library's own version and Python's come first.
    """
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    versions = []
    for package in ("crossmodal-retrieval", *packages):
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    here = f"{processor()}, {usable_processors()} processors{load}; {platform.system()}"
    return f"{here}, Python {platform.python_version()}, {', '.join(versions)}"


def processor() -> str:
    """Give the processor's name."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


@contextmanager
def timed(rates: Rates, name: str, count: int) -> Iterator[None]:
    """Note how many of ``count`` things a second were done."""
    start = time.perf_counter()
    yield
    rates.setdefault(name, []).append(count / (time.perf_counter() - start))


def summary(values: Sequence[float], form: str) -> str:
    """Give the median, and the range beside it."""
    low, high = (format(value, form).strip() for value in (min(values), max(values)))
    return f"{statistics.median(values):{form}}  ({low} to {high})"


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Cut a sequence into pieces."""
    return (items[start : start + size] for start in range(0, len(items), size))
