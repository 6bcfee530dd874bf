"""``crossmodal index``: bring a source of pictures into a collection."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crossmodal.errors import CollectionError, CrossmodalError, SourceError
from ui import options
from ui.endings import Interrupted, code_of, one_line
from ui.progress import meter, of_total

if TYPE_CHECKING:
    from crossmodal.collection import AddReport, Agreement, Collection
    from crossmodal.encoders import Encoder
    from crossmodal.index import Storage
    from crossmodal.sources import Source

SKIPPED_SHOWN = 20
"""So many left-out records are named one by one; the others are counted by reason."""

STORAGES = ["float32", "float16", "int8", "binary"]
"""As the index has them; named here, too, so that ``--help`` imports no index."""


@click.command("index", short_help="Bring pictures and captions into a collection.")
@click.argument("source")
@click.argument("collection", type=click.Path(path_type=Path))
@click.option("--encoder", "encoder_name", help="The twin encoder of a new collection.  [default: lite]")
@click.option(
    "--dim",
    type=click.IntRange(min=1),
    help="Keep so many of the first dimensions of each vector.  [default: all]",
)
@click.option(
    "--storage",
    type=options.OneOf(STORAGES),
    help="What a new collection keeps the numbers of a vector as.  [default: float32]",
)
@options.backend
@options.dtype
@click.option("--batch-size", type=click.IntRange(min=1), help="Pictures per run of the image tower.")
@click.option("--image-column", help="The column of a table that names the pictures.")
@click.option("--caption-column", help="The column of a table that holds the captions.")
@click.option("--key-column", help="The column of a table that holds the keys.")
@options.json_output
@options.verbose
def command(
    source: str,
    collection: Path,
    encoder_name: str | None,
    dim: int | None,
    storage: "Storage | None",
    backend: str,
    dtype: str | None,
    batch_size: int | None,
    as_json: bool,
    **columns: str | None,
) -> None:
    """Bring the pictures and captions of SOURCE into COLLECTION, a folder that is made if it is not there.

    SOURCE is a folder of pictures, a .csv, .tsv, .jsonl or .parquet file, WebDataset tars, hf:NAME[:SPLIT],
    karpathy:FILE.json?images=DIR, or the word sample. Run it again at any time: what has not changed is not
    embedded again, and what SOURCE no longer holds is removed.

    With --storage or --dim the vectors take less memory and disk: int8 a quarter of float32, binary a 32nd of
    the memory. What that costs is measured on the way and told at the end.
    """
    from crossmodal import open_source

    opened = open_source(source, **columns)
    with open_or_create(collection, opened, encoder_name, backend, dtype, dim, storage) as target:
        report = add_with_progress(target, opened, batch_size)
        if report.skipped and not (report.added or report.updated or report.unchanged or report.removed):
            raise SourceError(
                f"{source}: nothing usable; all {len(report.skipped):,} skipped ({by_reason(report)})"
            )
    click.echo(runs_on(target), err=True)
    info = target.info()
    if as_json:
        options.print_json({**report.to_dict(), "encoder": info.encoder["name"], "rows": info.rows})
    else:
        click.echo(summary(report))
    if report.agreement:
        click.echo(cost(report.agreement), err=True)


@contextmanager
def open_or_create(
    path: Path,
    source: "Source",
    encoder_name: str | None,
    backend: str,
    dtype: str | None,
    dim: int | None = None,
    storage: "Storage | None" = None,
) -> Iterator["Collection"]:
    """Open a collection with its own encoder, or make one; an error that leaves the new one empty removes it.

    :raises CollectionError: when it was made with another encoder, dtype, dimension or storage than named.
    """
    from crossmodal import Collection
    from crossmodal.collection.store import is_collection

    made = None
    if not is_collection(path):
        encoder = new_encoder(source, encoder_name, backend, dtype, dim)
        try:
            made = Collection.create(path, encoder, storage or "float32")
        except CollectionError:
            if not is_collection(path):  # else another process made it in the meantime, and it is ours, too
                raise
    if made is None:
        there = reopen(path, encoder_name, backend, dtype)
        _refuse_other_vectors(there, dim, storage)
        yield there
        return
    try:
        yield made
    except CrossmodalError:
        with suppress(CrossmodalError):  # why nothing came in matters more than what is left of it
            made.discard_if_empty()
        raise


def _refuse_other_vectors(collection: "Collection", dim: int | None, storage: "Storage | None") -> None:
    """Refuse to go on where what was asked for is not what the collection has.

    :raises CollectionError: so.
    """
    kept = {"--dim": collection.dim, "--storage": collection.storage}
    for option, asked in (("--dim", dim), ("--storage", storage)):
        if asked is not None and asked != kept[option]:
            raise CollectionError(
                f"{collection.path} was made with {option} {kept[option]}, not {asked}; "
                f"leave {option} out, or index into a new collection"
            )


def new_encoder(
    source: "Source", name: str | None, backend: str, dtype: str | None, dim: int | None = None
) -> "Encoder":
    """Load the encoder of a new collection, or `lite`; int8 is calibrated on pictures of the source."""
    from crossmodal import load_encoder
    from crossmodal.encoders.calibration import choose_pictures

    name = "lite" if name is None else name
    if dtype != "int8":
        return load_encoder(name, backend=backend, dtype=dtype or "float32", dim=dim)
    click.echo("calibrating int8 on pictures of the source ...", err=True)
    pictures = choose_pictures(source)
    return load_encoder(name, backend=backend, dtype=dtype, calibration=pictures, dim=dim)


def reopen(path: Path, encoder_name: str | None, backend: str, dtype: str | None) -> "Collection":
    """Open a collection, which knows its encoder and dtype; what is named besides must be just that.

    :raises CollectionError: when it was made with another encoder, or in another dtype.
    """
    from crossmodal import Collection
    from crossmodal.collection.collection import load_encoder_of

    collection = Collection.open(path, backend=backend)
    card = collection.card
    if dtype is not None and dtype != card.dtype:
        raise CollectionError(
            f"{path} was made in {card.dtype}, not in {dtype}; their embeddings cannot be compared. "
            "Leave --dtype out, or index into a new collection"
        )
    if encoder_name is None:
        return collection
    return Collection.open(path, load_encoder_of(card, path, backend=backend, name=encoder_name))


def runs_on(collection: "Collection") -> str:
    """Say what runs the towers, in which arithmetic and where."""
    encoder = collection.encoder
    return one_line(
        f"{encoder.card.name} runs on {encoder.card.backend}, {encoder.card.dtype}, {encoder.device}"
    )


def add_with_progress(collection: "Collection", source: Any, batch_size: int | None = None) -> "AddReport":
    """Add a source under a progress bar.

    :raises Interrupted: on Ctrl-C; it says how much is kept.
    """
    with meter("indexing") as shown:
        try:
            return collection.add(
                source,
                prune=True,
                batch_size=batch_size,
                progress=lambda progress: shown.update(progress.done, progress.total),
            )
        except KeyboardInterrupt as interrupt:
            kept = f"{of_total(shown.done, shown.total)} are indexed; run the same command to go on"
            raise Interrupted(kept, code_of(interrupt)) from None


def summary(report: "AddReport") -> str:
    """Say what was done in one line, and in some more what was replaced and what was left out."""
    counts = {
        "added": report.added,
        "updated": report.updated,
        "unchanged": report.unchanged,
        "removed": report.removed,
        "skipped": len(report.skipped),
    }
    done = report.added + report.updated + report.unchanged
    rate = f", {done / report.seconds:,.0f} a second" if report.seconds else ""
    lines = [f"{_counted(counts)} in {report.seconds:,.1f} s{rate}"]
    for source, count in report.replaced.items():
        others = "a record" if count == 1 else "records"
        lines.append(one_line(f"{count:,} of them replaced {others} with the same key from {source}"))
    if report.cut:
        longer = "a caption was" if report.cut == 1 else f"{report.cut:,} captions were"
        lines.append(f"{longer} longer than the encoder reads, and cut")
    if report.hidden:
        parts = ", ".join(report.hidden[:3]) + (" and more" if len(report.hidden) > 3 else "")
        lines.append(one_line(f"nothing was removed, for what lies behind {parts} could not be seen"))
    lines += [
        one_line(f"skipped {key}: {_without_path(reason)}") for key, reason in report.skipped[:SKIPPED_SHOWN]
    ]
    if (more := len(report.skipped) - SKIPPED_SHOWN) > 0:
        lines.append(f"skipped {more:,} more: {by_reason(report, SKIPPED_SHOWN)}")
    return "\n".join(lines)


def cost(agreement: "Agreement") -> str:
    """Say what small vectors cost, and how that was measured."""
    dims = (
        f"{agreement.dim} of {agreement.whole_dim}" if agreement.dim < agreement.whole_dim else agreement.dim
    )
    asked = "captions" if agreement.modality == "text" else "pictures"
    return (
        f"{agreement.storage}, {dims} dimensions: {agreement.share:.1%} of the ten nearest stay the same, "
        f"measured with {agreement.queries:,} queries ({asked}) on {agreement.pictures:,} pictures"
    )


def by_reason(report: "AddReport", start: int = 0) -> str:
    """Count the skipped records by what was wrong with them, most frequent first."""
    reasons = Counter(one_line(_without_path(reason).split(":")[0]) for _, reason in report.skipped[start:])
    return ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common())


def _without_path(reason: str) -> str:
    """Give a reason without the file it begins with: the key beside it says which one it is."""
    head, colon, rest = reason.partition(": ")
    return rest if colon and (os.sep in head or head == "image bytes") else reason


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count or what == "added")
