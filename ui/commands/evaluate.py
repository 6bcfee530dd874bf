"""``crossmodal evaluate``: measure an encoder on pictures and their captions, as the papers do."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ui import options
from ui.commands.index import new_encoder
from ui.endings import Interrupted, code_of, one_line
from ui.progress import meter, of_total

if TYPE_CHECKING:
    from rich.table import Table

    from crossmodal.encoders import Encoder
    from crossmodal.evaluation import Embedded, Protocol, Result
    from crossmodal.sources import Source

DIRECTIONS = {"text_to_image": "words to pictures", "image_to_text": "pictures to words"}
LEFT_OUT_SHOWN = 10


@click.command("evaluate", short_help="Measure how well pictures and captions find each other.")
@click.argument("source", required=False)
@click.option(
    "--embeddings", type=click.Path(path_type=Path), help="Measure the embeddings in this .npz instead."
)
@click.option("--encoder", "encoder_name", help="The twin encoder to measure.  [default: lite]")
@click.option(
    "--protocol", "protocol_name", default="pairs", show_default=True, help="The rule to measure by."
)
@click.option("--captions", type=click.IntRange(min=1), help="Take so many captions of each picture.")
@click.option("--output", type=click.Path(path_type=Path), help="Write the result to this .json, too.")
@click.option("--save-embeddings", type=click.Path(path_type=Path), help="Keep the embeddings in this .npz.")
@click.option(
    "--predictions", type=click.Path(path_type=Path), help="Write what every query found to this .parquet."
)
@click.option(
    "--details", "with_details", is_flag=True, help="Add precision, true recall and confidence intervals."
)
@click.option("--seed", type=int, default=0, show_default=True, help="What --details draws its samples by.")
@click.option("--allow-missing", is_flag=True, help="Measure without what is missing; the result lists it.")
@options.backend
@options.dtype
@click.option("--batch-size", type=click.IntRange(min=1), help="Pictures per run of the image tower.")
@options.json_output
@options.verbose
def command(
    source: str | None,
    embeddings: Path | None,
    encoder_name: str | None,
    protocol_name: str,
    captions: int | None,
    output: Path | None,
    save_embeddings: Path | None,
    predictions: Path | None,
    with_details: bool,
    seed: int,
    allow_missing: bool,
    backend: str,
    dtype: str | None,
    batch_size: int | None,
    as_json: bool,
) -> None:
    """Measure how well an encoder finds the pictures of SOURCE by their captions, and the captions by them.

    SOURCE is what `crossmodal index` takes. Recall@k is the share of queries that find something right among
    the first k. Whatever is wrong and scores as high as what is right ranks before it.

    Instead of a source, --embeddings takes an .npz with image_embeddings (N, D), text_embeddings (M, D) and
    image_of_text (M,).
    """
    if (source is None) == (embeddings is None):
        raise click.UsageError("Give a SOURCE or --embeddings FILE.npz, one of them")
    if embeddings is not None and encoder_name is not None:
        raise click.UsageError("--embeddings are there already; leave --encoder out, or give a SOURCE")
    from crossmodal.evaluation import find_protocol, measure, read_embeddings, write_embeddings

    protocol = find_protocol(protocol_name).with_captions(captions)
    card: Mapping[str, Any]
    if embeddings is not None:
        embedded = read_embeddings(embeddings)
        card = {"name": embeddings.name, "dim": embedded.images.shape[1]}
    else:
        from crossmodal import open_source

        opened = open_source(str(source))
        encoder = new_encoder(opened, encoder_name, backend, dtype)
        embedded = embed_with_progress(opened, protocol, encoder, allow_missing, batch_size)
        card = encoder.card.to_dict()
    if save_embeddings is not None:
        write_embeddings(embedded, save_embeddings)
    measured = measure(embedded, protocol)
    result = measured.result(card)
    if with_details:
        from crossmodal.evaluation.details import details

        result = replace(result, more=details(measured, seed=seed))
    if predictions is not None:
        from crossmodal.evaluation.predictions import write_predictions

        write_predictions(measured, predictions)
    if output is not None:
        result.write(output)
    tell(result, as_json)


def embed_with_progress(
    source: "Source", protocol: "Protocol", encoder: "Encoder", allow_missing: bool, batch_size: int | None
) -> "Embedded":
    """Embed what a protocol measures, under a progress bar.

    :raises Interrupted: on Ctrl-C; nothing is kept.
    """
    from crossmodal.evaluation import embed_source

    with meter("embedding") as shown:
        try:
            return embed_source(
                source,
                protocol,
                encoder,
                allow_missing=allow_missing,
                batch_size=batch_size,
                progress=shown.update,
            )
        except KeyboardInterrupt as interrupt:
            told = f"{of_total(shown.done, shown.total)} were embedded, nothing is kept"
            raise Interrupted(told, code_of(interrupt)) from None


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
