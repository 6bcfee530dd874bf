"""One evaluation as a person asked for it: embedded under a progress bar, measured, and written down."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ui.commands.index import new_encoder
from ui.endings import Interrupted, code_of
from ui.progress import meter, of_total

if TYPE_CHECKING:
    from crossmodal.encoders import Encoder
    from crossmodal.evaluation import Embedded, Protocol, Result
    from crossmodal.sources import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be measured and told, whatever the encoder; None and False where it was not asked for."""

    protocol: "Protocol"
    backend: str = "auto"
    dtype: str | None = None
    batch_size: int | None = None
    allow_missing: bool = False
    save_embeddings: Path | None = None
    predictions: Path | None = None
    report: Path | None = None
    details: bool = False
    seed: int = 0
    rerankers: list[str] = field(default_factory=list)
    bank: str | None = None


def evaluate_source(source: str, encoder_name: str | None, wanted: Wanted) -> "Result":
    """Embed a source with an encoder, and measure it."""
    from crossmodal import open_source

    opened = open_source(source)
    encoder = new_encoder(opened, encoder_name, wanted.backend, wanted.dtype)
    embedded = _embed(opened, wanted.protocol, encoder, wanted.allow_missing, wanted.batch_size)
    return _measured(embedded, encoder.card.to_dict(), wanted, encoder, opened)


def evaluate_embeddings(path: Path, wanted: Wanted) -> "Result":
    """Measure embeddings from a file."""
    from crossmodal.evaluation import read_embeddings

    embedded = read_embeddings(path)
    return _measured(embedded, {"name": path.name, "dim": embedded.images.shape[1]}, wanted)


def _measured(
    embedded: "Embedded",
    card: Mapping[str, Any],
    wanted: Wanted,
    encoder: "Encoder | None" = None,
    source: "Source | None" = None,
) -> "Result":
    """Measure what was embedded, and all that was asked for beside it."""
    from crossmodal.evaluation import measure, write_embeddings

    if wanted.save_embeddings is not None:
        write_embeddings(embedded, wanted.save_embeddings)
    measured = measure(embedded, wanted.protocol)
    more: dict[str, Any] = {}
    if wanted.details:
        from crossmodal.evaluation.details import details

        more |= details(measured, seed=wanted.seed)
    if wanted.rerankers:
        from crossmodal.evaluation.reranking import rerank_report

        pairs = None if wanted.bank is None else _bank(wanted.bank, encoder)
        more |= rerank_report(measured, wanted.rerankers, pairs, wanted.bank, wanted.seed)
    if wanted.predictions is not None:
        from crossmodal.evaluation.predictions import write_predictions

        write_predictions(measured, wanted.predictions)
    result = replace(measured.result(card), more=more)
    if wanted.report is not None:
        from crossmodal.evaluation.report import write_report

        write_report(measured, result, wanted.report, source)
    return result


def _bank(bank: str, encoder: "Encoder | None") -> "Embedded":
    """Embed the pairs whose queries correct hubs, or read their embeddings."""
    from crossmodal import open_source
    from crossmodal.evaluation import find_protocol, read_embeddings

    if bank.endswith(".npz"):
        return read_embeddings(Path(bank))
    if encoder is None:
        raise click.UsageError("Embeddings from a file need a --bank of embeddings, FILE.npz")
    embedded = _embed(open_source(bank), find_protocol("pairs"), encoder, True, None)
    if embedded.left_out:
        click.echo(f"the bank is without {len(embedded.left_out):,} things that are missing", err=True)
    return embedded


def _embed(
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
