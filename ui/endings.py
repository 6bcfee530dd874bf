"""How a run ends: an exit code, and at most one line on stderr unless the fault is ours.

0 is done, 2 is what the user can mend, 1 is a fault of ours with its traceback, and 128 plus the signal's
number is an interruption, as shells have it.
"""

import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

from crossmodal.errors import CrossmodalError, unknown
from crossmodal.refusals import disk_advice

DONE, OURS, YOURS = 0, 1, 2


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or a request to terminate; ``str(error)`` says what is kept."""

    def __init__(self, kept: str = "", code: int = 128 + signal.SIGINT) -> None:
        super().__init__(kept)
        self.code = code


def code_of(interrupt: KeyboardInterrupt) -> int:
    """Give the exit code of an interruption: 130 for Ctrl-C, 143 for a request to terminate."""
    return interrupt.code if isinstance(interrupt, Interrupted) else 128 + signal.SIGINT


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end a run as Ctrl-C does: what is kept is kept, and told."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise Interrupted(code=128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def end(error: BaseException) -> int:
    """Say on stderr how the run ended, and give its exit code."""
    match error:
        case BrokenPipeError():
            silence_stdout()
            return 128 + 13  # SIGPIPE, which Windows does not name
        case KeyboardInterrupt():
            say(f"interrupted: {error}" if str(error) else "interrupted")
            return code_of(error)
        case click.ClickException():
            say(usage(error), command=_path_of(error))
            return YOURS
        case CrossmodalError():
            say(str(error))
            return YOURS
        case OSError() if advice := disk_advice(error):
            silence_stdout()
            say(advice)
            return YOURS
    traceback.print_exception(error)
    say("this is a fault of the program, not yours; please report the lines above")
    return OURS


def say(message: str, command: str = "crossmodal") -> None:
    """Write one line on stderr, whatever the message holds."""
    click.echo(f"{command}: {one_line(message)}", err=True)


def one_line(text: str) -> str:
    """Give text without line breaks and without anything that steers a terminal."""
    return "".join(c if c.isprintable() else " " for c in " ".join(text.split()))


def silence_stdout() -> None:
    """Send what is still unwritten to nowhere: nobody reads it, and Python would complain at its exit."""
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):
        return
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 (the null device is no path of ours)
        os.dup2(nowhere.fileno(), number)


def usage(error: click.ClickException) -> str:
    """Give one line for what click refused: what was wrong and, where a list is closed, what is known."""
    if isinstance(error, click.NoSuchOption):
        known = {name for p in _parameters(error) for name in (*p.opts, *p.secondary_opts)}
        return unknown("option", error.option_name, known)
    message = error.format_message().rstrip(".")
    return f"{message}. See: {_path_of(error)} --help"


def _parameters(error: click.UsageError) -> list[click.Parameter]:
    if error.ctx is None:
        return []
    parameters = error.ctx.command.get_params(error.ctx)
    return [p for p in parameters if isinstance(p, click.Option)]


def _path_of(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    return context.command_path if context else "crossmodal"
