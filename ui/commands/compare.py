"""``crossmodal compare``: results of ``crossmodal evaluate`` side by side, with published ones."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ui import options
from ui.endings import one_line

if TYPE_CHECKING:
    from rich.table import Table

    from crossmodal.evaluation.comparison import Comparison, Row
    from crossmodal.metrics.significance import Difference

WAYS = {"image_to_text": "to words", "text_to_image": "to pictures"}


@click.command("compare", short_help="Put results side by side, with published ones.")
@click.argument("results", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--test",
    "predictions",
    nargs=2,
    type=click.Path(path_type=Path),
    metavar="A.parquet B.parquet",
    help="Say whether B differs from A; both as `crossmodal evaluate --predictions` wrote them.",
)
@options.json_output
@options.verbose
def command(results: Sequence[Path], predictions: tuple[Path, Path] | None, as_json: bool) -> None:
    """Put RESULTS, files that `crossmodal evaluate --output` wrote, side by side.

    All must have been measured by one protocol, on the same pictures and captions. Where results were
    published for that protocol, they follow. Recalls are in percent.

    With --test, each measure's difference is given with its 95% interval, and with p, the share of random
    exchanges between the two models that lead as far apart.
    """
    if not (results or predictions):
        raise click.UsageError("Give RESULTS, or --test A.parquet B.parquet")
    document: dict[str, Any] = {}
    if results:
        from crossmodal.evaluation import Result
        from crossmodal.evaluation.comparison import compare

        compared = compare([(str(path), Result.read(path)) for path in results])
        document |= compared.to_dict()
        if not as_json:
            tell(compared)
    if predictions:
        from crossmodal.evaluation.predictions import compare_predictions

        apart = compare_predictions(*predictions)
        document["test"] = {way: {name: asdict(one) for name, one in apart[way].items()} for way in apart}
        if not as_json:
            click.echo(lines_of_test(apart))
    if as_json:
        options.print_json(document)


def tell(compared: "Comparison") -> None:
    """Print a comparison: a table on a terminal, lines with tabs elsewhere; what was measured on stderr."""
    if sys.stdout is not None and sys.stdout.isatty():
        from rich.console import Console

        Console().print(table(compared))
    else:
        click.echo("\n".join("\t".join([row.name, *cells(row)]) for row in compared.rows))
    facts = compared.protocol
    told = (
        f"{facts['name']}: {facts['images']:,} pictures, {facts['texts']:,} captions, "
        f"fingerprint {facts['fingerprint']}; recall at 1, 5, 10"
    )
    click.echo(one_line(told), err=True)


def lines_of_test(apart: "Mapping[str, Mapping[str, Difference]]") -> str:
    """Give a line per measure: direction, name, difference, the ends of its interval, and p."""
    return "\n".join(
        f"{way}\t{name}\t{one.difference:+.4f}\t{one.low:+.4f}\t{one.high:+.4f}\t{one.p:.4f}"
        for way, measures in apart.items()
        for name, one in measures.items()
    )


def cells(row: "Row") -> list[str]:
    """Give the six recalls of a row, pictures to words first, and their sum."""
    values = [row.recalls[way][k] for way in WAYS for k in row.recalls[way]]
    return ["" if value is None else f"{value:.1f}" for value in (*values, row.rsum)]


def table(compared: "Comparison") -> "Table":
    """Lay a comparison out for a terminal; published results are dim."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    laid = Table(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1))
    laid.add_column("")
    for words in WAYS.values():
        first, *rest = (f"R@{k}" for k in (1, 5, 10))
        laid.add_column(f"{words}\n{first}", justify="right")
        for head in rest:
            laid.add_column(f"\n{head}", justify="right")
    laid.add_column("\nrsum", justify="right")
    for row in compared.rows:
        name = f"{row.name} (published)" if row.published else row.name
        laid.add_row(Text(one_line(name)), *cells(row), style="dim" if row.published else "")
    return laid
