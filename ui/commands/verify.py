"""``crossmodal verify``: check that a collection is whole."""

from pathlib import Path

import click

from ui import options
from ui.endings import YOURS, one_line, say


@click.command("verify", short_help="Check that a collection is whole.")
@click.argument("collection", type=click.Path(path_type=Path))
@click.option("--repair", is_flag=True, help="Mend what can be mended.")
@options.verbose
@click.pass_context
def command(ctx: click.Context, collection: Path, repair: bool) -> None:
    """Check that COLLECTION is whole: its table, its embeddings and its index.

    Exit code 0 means whole; 2 means that the problems listed are there.
    """
    from crossmodal import Collection

    report = Collection.open(collection).verify(repair=repair)
    for mended in report.repaired:
        click.echo(f"repaired: {one_line(mended)}")
    for missing in report.missing:
        click.echo(f"missing picture: {one_line(missing)}")
    for problem in report.problems:
        click.echo(f"problem: {one_line(problem)}")
    if report.ok:
        click.echo(f"{collection} is whole")
        return
    advice = "index its source again" if repair else f"mend it with: crossmodal verify {collection} --repair"
    say(f"{collection} has {len(report.problems):,} problems; {advice}")
    ctx.exit(YOURS)
