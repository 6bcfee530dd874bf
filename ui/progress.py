"""How far long work is, told on stderr: a bar on a terminal, an occasional line elsewhere."""

import sys
import time
from typing import Self

import click

QUIET_SECONDS = 10.0
"""Off a terminal, a line is written at most this often."""


def meter(what: str) -> "Bar | Lines":
    """Give a bar where stderr is a terminal, and occasional lines elsewhere."""
    return Bar(what) if sys.stderr.isatty() else Lines(what)


def of_total(done: int, total: int | None) -> str:
    """Say ``512 of 2,650``, or ``512`` where nobody knows how many there are."""
    return f"{done:,}" if total is None else f"{done:,} of {total:,}"


class Lines:
    """A line now and then, for logs."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.done = 0
        self.total: int | None = None
        self._began = self._told = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def update(self, done: int, total: int | None, note: str = "") -> None:
        """Write a line if the last one is long ago."""
        self.done, self.total = done, total
        now = time.monotonic()
        if now - self._told < QUIET_SECONDS:
            return
        self._told = now
        rate = done / (now - self._began)
        left = f", {(total - done) / rate:,.0f} s left" if total is not None and rate else ""
        pace = note or f"{rate:,.0f} a second"
        click.echo(f"{self.what}: {of_total(done, total)}, {pace}{left}", err=True)


class Bar:
    """A bar with count, rate and time left; rich is imported when it is shown."""

    def __init__(self, what: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.done = 0
        self.total: int | None = None
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[count]}"),
            TextColumn("{task.fields[rate]}", style="dim"),
            TimeRemainingColumn(),
            TextColumn("left", style="dim"),
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=False,
        )
        self._task = self._progress.add_task(what, total=None, count="", rate="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def update(self, done: int, total: int | None, note: str = "") -> None:
        """Move the bar; ``note`` stands in the place of the rate."""
        self.done, self.total = done, total
        task = self._progress.tasks[0]
        rate = note or (f"{done / task.elapsed:,.0f}/s" if task.elapsed and done else "")
        self._progress.update(self._task, completed=done, total=total, count=of_total(done, total), rate=rate)
