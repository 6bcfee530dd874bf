"""``crossmodal search``: ask a collection with words, pictures, or both."""

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ui import options
from ui.endings import one_line

if TYPE_CHECKING:
    from rich.table import Table

    from crossmodal.types import Hit, Modality

WIDE = 100
"""A terminal of so many columns shows the paths as well."""


@click.command("search", short_help="Find pictures or captions.")
@click.argument("collection", type=click.Path(path_type=Path))
@click.option("-t", "--text", "texts", multiple=True, help="Words to look for; may be given several times.")
@click.option("-i", "--image", "images", multiple=True, help="A picture to look for; likewise.")
@click.option("--not-text", "unwanted", multiple=True, help="Words to keep away from; likewise.")
@click.option(
    "--to",
    "target",
    type=options.OneOf(["image", "text"]),
    default="image",
    show_default=True,
    help="What to find: pictures, or captions.",
)
@click.option("-k", type=int, default=10, show_default=True, help="The number of hits.")
@click.option("--where", help="Only what passes this SQL filter, for example \"author = 'johnny'\".")
@click.option("--min-score", type=float, help="Only hits of at least this score.")
@options.backend
@options.json_output
@options.verbose
def command(
    collection: Path,
    texts: Sequence[str],
    images: Sequence[str],
    unwanted: Sequence[str],
    target: "Modality",
    k: int,
    where: str | None,
    min_score: float | None,
    backend: str,
    as_json: bool,
) -> None:
    """Find in COLLECTION what fits all the words and pictures given, taken together.

    On a terminal the hits are a table; elsewhere they are lines of rank, score, key, caption and path with
    tabs between. The columns that --where may name are listed by: crossmodal info COLLECTION
    """
    if not (texts or images or unwanted):
        raise click.UsageError("Nothing to look for; give --text, --image or --not-text")
    from crossmodal import Collection
    from crossmodal.collection.query import AVOID_WEIGHT

    opened = Collection.open(collection, backend=backend)
    terms = [
        *(("text", text, 1.0) for text in texts),
        *(("image", image, 1.0) for image in images),
        *(("text", text, AVOID_WEIGHT) for text in unwanted),
    ]
    began = time.perf_counter()
    hits = opened.search(terms=terms, target=target, k=k, where=where, min_score=min_score)
    took_ms = round((time.perf_counter() - began) * 1000, 1)
    if as_json:
        found = [asdict(hit) for hit in hits]
        options.print_json({"hits": found, "collection": str(collection), "took_ms": took_ms})
    elif not hits:
        click.echo(
            "nothing found; ask for less: a lower --min-score, another --where, or other words", err=True
        )
    elif sys.stdout is not None and sys.stdout.isatty():
        from rich.console import Console

        console = Console()
        console.print(table(hits, console.width))
    else:
        click.echo(lines(hits))


def lines(hits: Sequence["Hit"]) -> str:
    """Give a line per hit with tabs between its parts, for other programs."""
    return "\n".join(
        "\t".join([str(rank), f"{hit.score:.4f}", *map(one_line, (hit.key, hit.text, hit.uri))])
        for rank, hit in enumerate(hits, 1)
    )


def table(hits: Sequence["Hit"], width: int) -> "Table":
    """Lay the hits out for a terminal so many columns wide; nothing in them is taken for markup."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    laid = Table(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1))
    laid.add_column("", justify="right", style="dim", min_width=2)
    laid.add_column("score", justify="right", min_width=6)
    laid.add_column("key", overflow="fold", max_width=max(8, width // 4))
    laid.add_column("caption", overflow="fold", min_width=8)
    with_paths = width >= WIDE and any(hit.uri for hit in hits)
    if with_paths:
        laid.add_column("path", overflow="fold", style="dim")
    for rank, hit in enumerate(hits, 1):
        caption = " / ".join(hit.text.splitlines())
        row = [hit.key, caption, hit.uri] if with_paths else [hit.key, caption]
        laid.add_row(str(rank), f"{hit.score:.3f}", *(Text(one_line(part)) for part in row))
    return laid
