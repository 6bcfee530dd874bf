"""``crossmodal evaluate``: measure an encoder on pictures and their captions, as the papers do."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ui import options
from ui.commands.index import new_encoder
from ui.endings import Interrupted, code_of
from ui.progress import meter, of_total
from ui.results import tell

if TYPE_CHECKING:
    from crossmodal.encoders import Encoder
    from crossmodal.evaluation import Embedded, Protocol
    from crossmodal.sources import Source


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
@click.option(
    "--rerank",
    "reranking",
    metavar="NAMES",
    help="Show what corrections do: nnn, qb-norm, inverted-softmax, csls, dual-softmax, query-expansion; "
    "several with commas.",
)
@click.option("--bank", help="A source or .npz of training pairs, whose queries --rerank learns hubs from.")
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
    reranking: str | None,
    bank: str | None,
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

    rerankers = rerankers_of(reranking, bank)
    protocol = find_protocol(protocol_name).with_captions(captions)
    card: Mapping[str, Any]
    encoder = None
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
    more: dict[str, Any] = {}
    if with_details:
        from crossmodal.evaluation.details import details

        more |= details(measured, seed=seed)
    if rerankers:
        from crossmodal.evaluation.reranking import rerank_report

        pairs = None if bank is None else bank_of(bank, encoder)
        more |= rerank_report(measured, rerankers, pairs, bank, seed)
    if predictions is not None:
        from crossmodal.evaluation.predictions import write_predictions

        write_predictions(measured, predictions)
    result = replace(measured.result(card), more=more)
    if output is not None:
        result.write(output)
    tell(result, as_json)


def rerankers_of(names: str | None, bank: str | None) -> list[str]:
    """Read which corrections are wanted, before anything is embedded."""
    if names is None:
        if bank is not None:
            raise click.UsageError("--bank serves --rerank alone; give one, for example --rerank nnn")
        return []
    from crossmodal.evaluation.reranking import find_rerankers

    return find_rerankers(names)


def bank_of(bank: str, encoder: "Encoder | None") -> "Embedded":
    """Embed the pairs whose queries correct hubs, or read their embeddings."""
    from crossmodal import open_source
    from crossmodal.evaluation import find_protocol, read_embeddings

    if bank.endswith(".npz"):
        return read_embeddings(Path(bank))
    if encoder is None:
        raise click.UsageError("Embeddings from a file need a --bank of embeddings, FILE.npz")
    embedded = embed_with_progress(open_source(bank), find_protocol("pairs"), encoder, True, None)
    if embedded.left_out:
        click.echo(f"the bank is without {len(embedded.left_out):,} things that are missing", err=True)
    return embedded


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
