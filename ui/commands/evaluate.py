"""``crossmodal evaluate``: measure encoders on pictures and their captions, as the papers do."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crossmodal.errors import CrossmodalError, EvaluationError
from ui import options
from ui.endings import one_line
from ui.evaluating import Wanted, evaluate_embeddings, evaluate_source
from ui.results import tell

if TYPE_CHECKING:
    from crossmodal.evaluation import Result


@click.command("evaluate", short_help="Measure how well pictures and captions find each other.")
@click.argument("source", required=False)
@click.option(
    "--embeddings", type=click.Path(path_type=Path), help="Measure the embeddings in this .npz instead."
)
@click.option(
    "--encoder",
    "encoders",
    multiple=True,
    help="The twin encoder to measure; several, each with --encoder, need --output FOLDER.  [default: lite]",
)
@click.option(
    "--protocol", "protocol_name", default="pairs", show_default=True, help="The rule to measure by."
)
@click.option("--captions", type=click.IntRange(min=1), help="Take so many captions of each picture.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Write the result to this .json, too; several encoders' into this folder.",
)
@click.option("--save-embeddings", type=click.Path(path_type=Path), help="Keep the embeddings in this .npz.")
@click.option(
    "--predictions", type=click.Path(path_type=Path), help="Write what every query found to this .parquet."
)
@click.option("--report", type=click.Path(path_type=Path), help="Write a report to read, .html or .md.")
@click.option(
    "--details",
    "with_details",
    is_flag=True,
    help="Add precision, true recall, intervals, and how embeddings lie.",
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
    encoders: Sequence[str],
    protocol_name: str,
    captions: int | None,
    output: Path | None,
    with_details: bool,
    reranking: str | None,
    as_json: bool,
    **asked: Any,
) -> None:
    """Measure how well an encoder finds the pictures of SOURCE by their captions, and the captions by them.

    SOURCE is what `crossmodal index` takes. Recall@k is the share of queries that find something right among
    the first k. Whatever is wrong and scores as high as what is right ranks before it.

    Instead of a source, --embeddings takes an .npz with image_embeddings (N, D), text_embeddings (M, D) and
    image_of_text (M,).

    Several encoders are measured one after another. What the folder holds already is not measured again, and
    one that fails does not keep the others from being measured.
    """
    if (source is None) == (embeddings is None):
        raise click.UsageError("Give a SOURCE or --embeddings FILE.npz, one of them")
    if embeddings is not None and encoders:
        raise click.UsageError("--embeddings are there already; leave --encoder out, or give a SOURCE")
    from crossmodal.evaluation import find_protocol

    written = [asked[name] for name in ("save_embeddings", "predictions", "report")]
    check_places([*written, output if len(encoders) < 2 else None])
    if asked["report"] is not None:
        from crossmodal.evaluation.report import check_suffix

        check_suffix(asked["report"])
    wanted = Wanted(
        protocol=find_protocol(protocol_name).with_captions(captions),
        details=with_details,
        rerankers=rerankers_of(reranking, asked["bank"]),
        **asked,
    )
    if len(encoders) > 1:
        evaluate_many(str(source), encoders, wanted, output, as_json)
        return
    if embeddings is not None:
        result = evaluate_embeddings(embeddings, wanted)
    else:
        result = evaluate_source(str(source), encoders[0] if encoders else None, wanted)
    if output is not None:
        result.write(output)
    tell(result, as_json)


def check_places(files: Sequence[Path | None]) -> None:
    """Refuse, before anything is measured, what cannot be written to.

    :raises EvaluationError: for a folder, or a file in a folder that is not there.
    """
    for file in filter(None, files):
        if file.is_dir():
            raise EvaluationError(f"{file} is a folder, and a file is wanted; name one in it")
        if not file.absolute().parent.is_dir():
            raise EvaluationError(f"No such folder: {file.parent}; make it first")


def rerankers_of(names: str | None, bank: str | None) -> list[str]:
    """Read which corrections are wanted, before anything is embedded."""
    if names is None:
        if bank is not None:
            raise click.UsageError("--bank serves --rerank alone; give one, for example --rerank nnn")
        return []
    from crossmodal.evaluation.reranking import find_rerankers

    return find_rerankers(names)


def evaluate_many(
    source: str, encoders: Sequence[str], wanted: Wanted, folder: Path | None, as_json: bool
) -> None:
    """Measure encoders one after another into a folder, and put them side by side.

    :raises EvaluationError: at the end, when some could not be measured; it names them.
    """
    from crossmodal.evaluation.comparison import compare
    from ui.commands.compare import tell as tell_comparison

    if folder is None:
        raise click.UsageError("Several encoders need --output FOLDER, which keeps a result for each")
    if wanted.save_embeddings or wanted.predictions or wanted.report:
        raise click.UsageError("What is written to a file is of one encoder; measure them one by one for it")
    folder.mkdir(parents=True, exist_ok=True)
    results: list[tuple[str, Result]] = []
    failed: list[str] = []
    for name in dict.fromkeys(encoders):
        path = folder / file_name(source, name, wanted)
        try:
            results.append((str(path), one_of_many(source, name, wanted, path)))
        except CrossmodalError as error:
            failed.append(name)
            click.echo(one_line(f"{name} is not measured: {error}"), err=True)
    if results:
        compared = compare(results)
        if as_json:
            options.print_json(compared.to_dict())
        else:
            tell_comparison(compared)
    if failed:
        raise EvaluationError(
            f"{len(failed)} of {len(set(encoders))} encoders could not be measured: {', '.join(failed)}; "
            "the reasons are above. Run the same command again to measure these alone"
        )


def one_of_many(source: str, name: str, wanted: Wanted, path: Path) -> "Result":
    """Give the result that is there, or measure and write it."""
    from crossmodal.evaluation import Result

    if path.exists():
        click.echo(one_line(f"{name} is measured already: {path}"), err=True)
        return Result.read(path)
    click.echo(one_line(f"measuring {name} ..."), err=True)
    result = evaluate_source(source, name, wanted)
    result.write(path)
    return result


def file_name(source: str, encoder: str, wanted: Wanted) -> str:
    """Name a result by its encoder, and by a hash of all that it depends on."""
    asked = hashlib.sha256(repr((source, encoder, wanted)).encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9.]+', '-', encoder).strip('-')}-{asked}.json"
