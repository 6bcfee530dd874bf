"""What several commands share: options that mean the same everywhere, and how JSON goes out."""

import datetime
import json
import logging
import math
import traceback
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from crossmodal.errors import unknown

F = TypeVar("F", bound=Callable[..., Any])


class OneOf(click.Choice[str]):
    """A closed list of values; another one is answered with the nearest and all there are."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Give the value if it is known."""
        if value not in self.choices:
            kind = max(param.opts, key=len) if param else "value"
            raise click.UsageError(unknown(f"value of {kind}", str(value), self.choices), ctx)
        return str(value)


def _set_verbosity(_ctx: click.Context, _param: click.Parameter, count: int) -> None:
    """Let the library's log reach stderr: warnings always, all it does with -v, its details with -vv."""
    logger = logging.getLogger("crossmodal")
    logger.setLevel({0: logging.WARNING, 1: logging.INFO}.get(count, logging.DEBUG))
    if not logger.handlers:
        logger.addHandler(_ToStderr())


class _ToStderr(logging.Handler):
    """Writes to what stderr is at that moment, so that a progress bar is not torn."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, and the traceback where there is one."""
        click.echo(f"{record.levelname.lower()}: {record.getMessage()}", err=True)
        if record.exc_info:
            click.echo("".join(traceback.format_exception(record.exc_info[1])), err=True, nl=False)


def verbose(command: F) -> F:
    """Add ``-v``: tell on stderr what the library does."""
    return click.option(
        "-v",
        "--verbose",
        count=True,
        expose_value=False,
        callback=_set_verbosity,
        is_eager=True,
        help="Tell on stderr what is done; twice tells more.",
    )(command)


def json_output(command: F) -> F:
    """Add ``--json``, which puts one JSON document on stdout and nothing else."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")(command)


def backend(command: F) -> F:
    """Add ``--backend``: what runs the towers."""
    return click.option(
        "--backend",
        type=OneOf(["auto", "torch", "torch-compile", "openvino"]),
        default="auto",
        show_default=True,
        help="What runs the towers.",
    )(command)


def dtype(command: F) -> F:
    """Add ``--dtype``: what the towers compute in."""
    return click.option(
        "--dtype",
        type=OneOf(["float32", "bfloat16", "float16", "int8"]),
        help="What the towers of a new collection compute in; int8 is calibrated on SOURCE.  "
        "[default: float32]",
    )(command)


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document: dates become ISO text, and numbers that JSON does not know become null."""
    click.echo(json.dumps(_plain(document), ensure_ascii=False, indent=2, allow_nan=False))


def _plain(value: Any) -> Any:
    """Give a value in JSON's own types."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, datetime.date | datetime.datetime):
        return value.isoformat()
    return value
