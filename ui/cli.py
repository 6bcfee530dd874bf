"""The command ``crossmodal``: finds the command that was asked for, and runs it to an orderly end."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from crossmodal.errors import unknown
from ui.endings import end, terminate_as_interrupt

COMMANDS = {
    "demo": "ui.commands.demo",
    "index": "ui.commands.index",
    "search": "ui.commands.search",
    "info": "ui.commands.info",
    "remove": "ui.commands.remove",
    "verify": "ui.commands.verify",
    "evaluate": "ui.commands.evaluate",
    "compare": "ui.commands.compare",
    "convert": "ui.commands.convert",
    "train": "ui.commands.train",
}


class CommandLine(click.Group):
    """Loads a command when it is named, and ends every run as ``ui.endings`` says."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Give the commands in the order in which people meet them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the one command that is wanted."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name]).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an unknown one is answered with the nearest and all there are."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            raise Refused(unknown("command", name, COMMANDS))
        return super().resolve_command(ctx, args)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Read the arguments; ``--help`` is answered here, and may meet a closed pipe or a full disk."""
        with _carried():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _carried():
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run what the arguments say and leave with its exit code."""
        extra |= {"standalone_mode": False, "prog_name": "crossmodal"}
        try:
            with terminate_as_interrupt():
                result = super().main(*args, **extra)
            sys.exit(result if isinstance(result, int) else 0)
        except _Carried as carried:
            sys.exit(end(carried.error))
        except click.Abort:
            sys.exit(end(KeyboardInterrupt()))
        except Exception as error:
            sys.exit(end(error))


class _Carried(Exception):
    """Carries an interruption or an OSError past click's own ``main``, which would end it in its own way."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


@contextmanager
def _carried() -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, OSError) as error:
        raise _Carried(error) from error


class Refused(click.ClickException):
    """A complaint that already says what to do."""


@click.group(
    "crossmodal",
    cls=CommandLine,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="crossmodal-retrieval", message="crossmodal %(version)s")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Find pictures with words, words with pictures, and pictures with pictures."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


if __name__ == "__main__":
    main()
