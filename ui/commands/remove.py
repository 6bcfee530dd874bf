"""``crossmodal remove``: take records out of a collection."""

from collections.abc import Sequence
from pathlib import Path

import click

from ui import options


@click.command("remove", short_help="Take records out of a collection.")
@click.argument("collection", type=click.Path(path_type=Path))
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@options.verbose
def command(collection: Path, keys: Sequence[str]) -> None:
    """Take the records with these keys out of COLLECTION; their files stay where they are.

    When one of the keys is not there, nothing is removed.
    """
    from crossmodal import Collection

    opened = Collection.open(collection)
    removed = opened.remove(keys)
    click.echo(f"removed {removed:,}; {len(opened):,} left")
