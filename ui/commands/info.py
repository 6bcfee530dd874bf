"""``crossmodal info``: the facts of a collection."""

import sys
from pathlib import Path

import click

from ui import options
from ui.endings import one_line
from ui.facts import facts


@click.command("info", short_help="Tell what a collection holds.")
@click.argument("collection", type=click.Path(path_type=Path))
@options.json_output
@options.verbose
def command(collection: Path, as_json: bool) -> None:
    """Tell what COLLECTION holds, which encoder made it, where its index lives, and what --where may name."""
    from crossmodal import Collection

    info = Collection.open(collection).info()
    if as_json:
        options.print_json(info.to_dict())
        return
    told = {name: one_line(value) for name, value in facts(info).items()}
    if sys.stdout is not None and sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        card = Table.grid(padding=(0, 2))
        card.add_column(style="dim", no_wrap=True)
        card.add_column(overflow="fold")
        for name, value in told.items():
            card.add_row(name, Text(value))
        Console().print(card)
    else:
        click.echo("\n".join(f"{name}\t{value}" for name, value in told.items()))
