"""A result of an evaluation for people: a table on a terminal, lines elsewhere, and what was measured."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from ui import options
from ui.endings import one_line

if TYPE_CHECKING:
    from rich.table import Table

    from crossmodal.evaluation import Result

DIRECTIONS = {"text_to_image": "words to pictures", "image_to_text": "pictures to words"}
LEFT_OUT_SHOWN = 10


def tell(result: "Result", as_json: bool) -> None:
    """Print a result: JSON, a table on a terminal, or lines with tabs elsewhere."""
    if as_json:
        options.print_json(result.to_dict())
        return
    for key, reason in result.protocol.get("left_out", [])[:LEFT_OUT_SHOWN]:
        click.echo(one_line(f"left out {key}: {reason}"), err=True)
    if sys.stdout is not None and sys.stdout.isatty():
        from rich.console import Console

        Console().print(table(result))
    else:
        click.echo(lines(result))
    for name, value in result.more.get("geometry", {}).items():
        click.echo(f"{name}\t{value:.4g}")
    for name, facts in result.more.get("reranked", {}).items():
        click.echo(one_line(reranked_line(name, facts)))
    click.echo(one_line(heading(result)), err=True)


def heading(result: "Result") -> str:
    """Say in one line what was measured."""
    facts = result.protocol
    left_out = len(facts.get("left_out", []))
    without = f", {left_out:,} things left out" if left_out else ""
    return (
        f"{result.encoder['name']} by {facts['name']}: {facts['images']:,} pictures, {facts['texts']:,} "
        f"captions{without}, fingerprint {facts['fingerprint']}; rsum {result.rsum:.1f}"
    )


def reranked_line(name: str, facts: Mapping[str, Any]) -> str:
    """Say in one line what a correction did to recall@1, and from which queries it learnt."""
    moved = ", ".join(
        f"{words} R@1 {100 * facts[way]['recall@1']:.1f}% ({100 * change['difference']:+.1f}, "
        f"{100 * change['low']:+.1f} to {100 * change['high']:+.1f})"
        for way, words in DIRECTIONS.items()
        for change in [facts["change"][way]]
    )
    learnt = "transductive: made of the test queries" if facts["transductive"] else facts["bank"] or "no bank"
    return f"{name} ({learnt}): {moved}, rsum {facts['rsum']:.1f}"


def lines(result: "Result") -> str:
    """Give a line per measure with tabs between its parts, for other programs."""
    rows: list[tuple[str, str, list[float]]] = [
        (direction, name, [value, *_bounds(result, direction, name)])
        for direction in DIRECTIONS
        for name, value in _measures(result, direction).items()
    ]
    rows.append(("", "rsum", [result.rsum, *result.more.get("confidence", {}).get("rsum", [])]))
    return "\n".join(
        "\t".join([direction, name, *(f"{value:.6g}" for value in values)])
        for direction, name, values in rows
    )


def table(result: "Result") -> "Table":
    """Lay the measures out, a column for each direction; shares are in percent."""
    from rich import box
    from rich.table import Table

    laid = Table(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1))
    laid.add_column("")
    for words in DIRECTIONS.values():
        laid.add_column(words, justify="right")
    names = dict.fromkeys(name for direction in DIRECTIONS for name in _measures(result, direction))
    for name in names:
        laid.add_row(name, *(_cell(result, direction, name) for direction in DIRECTIONS))
    return laid


def _measures(result: "Result", direction: str) -> dict[str, float]:
    """Give the measures of one direction, and those of its details after them."""
    return {**result.measures[direction], **result.more.get("details", {}).get(direction, {})}


def _bounds(result: "Result", direction: str, name: str) -> list[float]:
    """Give the ends of a measure's interval; nothing where there is none."""
    bounds: list[float] = result.more.get("confidence", {}).get(direction, {}).get(name, [])
    return bounds


def _cell(result: "Result", direction: str, name: str) -> str:
    shown = [
        f"{value:,.1f}" if name.endswith("_rank") else f"{100 * value:.1f}%"
        for value in (_measures(result, direction)[name], *_bounds(result, direction, name))
    ]
    return f"{shown[0]}  ({shown[1]} to {shown[2]})" if len(shown) == 3 else shown[0]
