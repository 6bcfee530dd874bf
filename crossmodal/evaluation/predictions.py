"""What every query found, in a Parquet file: its measures and its first hits; and two such files tested."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from crossmodal.errors import EvaluationError
from crossmodal.evaluation.measure import Fold, Measured
from crossmodal.evaluation.result import DIRECTIONS
from crossmodal.metrics.counting import Embeddings, blocks
from crossmodal.metrics.significance import Difference, Totals, differences

HITS = 10
QUERIES_AT_ONCE = 256
NO_MEASURES = ("direction", "query", "image", "text", "rank", "hits", "scores")


def write_predictions(measured: Measured, path: Path, hits: int = HITS) -> None:
    """Write a row for each query of both directions; the file is there whole or not at all.

    ``direction``; ``query``: the row of the caption or picture asked with; ``image``: the id of that picture,
    or of the caption's; ``text``: the caption, empty for a picture; ``rank`` of the first right answer; every
    measure of that query; ``hits``: what it found first, pictures by their ids and captions by their rows,
    and their ``scores``.
    """
    fingerprint = measured.result({}).protocol["fingerprint"]
    part = path.with_name(path.name + ".part")
    writer: pq.ParquetWriter | None = None
    try:
        for direction in DIRECTIONS:
            for fold in measured.folds:
                for rows in _rows(measured, fold, direction, hits):
                    table = pa.table(rows).replace_schema_metadata({"fingerprint": fingerprint})
                    writer = writer or pq.ParquetWriter(part, table.schema)
                    writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()
    part.replace(path)


def _rows(measured: Measured, fold: Fold, direction: str, hits: int) -> Iterator[dict[str, Any]]:
    pairs = measured.embedded.pairs
    to_image = direction == "text_to_image"
    asking, offered = measured.embedded.texts, measured.embedded.images
    gallery = fold.images if to_image else fold.texts
    if not to_image:
        asking, offered = offered, asking
    per_query = fold.reports[direction].per_query
    values = {**per_query.values(), **per_query.extra_values()}
    del values["mean_rank"]
    queries = fold.queries(direction)
    wide = offered[gallery].astype(np.float64)
    for some in blocks(len(queries), QUERIES_AT_ONCE):
        asked = queries[some]
        found, scores = best_hits(asking[asked], wide, hits)
        images = pairs.image_of_text[asked] if to_image else asked
        yield {
            "direction": [direction] * len(asked),
            "query": asked,
            "image": [pairs.image_ids[row] for row in images.tolist()],
            "text": [pairs.captions[row] if to_image else "" for row in asked.tolist()],
            "rank": per_query.rank[some],
            **{name: value[some].astype(np.float64) for name, value in values.items()},
            "hits": [
                [pairs.image_ids[row] if to_image else str(row) for row in gallery[line].tolist()]
                for line in found
            ],
            "scores": list(scores),
        }


def best_hits(queries: Embeddings, gallery: Embeddings, hits: int) -> tuple[np.ndarray, np.ndarray]:
    """Give the rows of the gallery that score highest with each query, and their scores: (Q, hits) each."""
    scores = (queries.astype(np.float64) @ gallery.T).astype(np.float32)
    hits = min(hits, scores.shape[1])
    found = np.argpartition(-scores, hits - 1, axis=1)[:, :hits]
    order = np.argsort(-np.take_along_axis(scores, found, axis=1), axis=1, kind="stable")
    found = np.take_along_axis(found, order, axis=1)
    return found, np.take_along_axis(scores, found, axis=1)


def compare_predictions(first: Path, second: Path, seed: int = 0) -> dict[str, dict[str, Difference]]:
    """Test by direction and measure whether the second model differs from the first.

    :raises EvaluationError: when a file is not one of predictions, or the two are of different queries.
    """
    tables = [_read(path) for path in (first, second)]
    prints = [(table.schema.metadata or {}).get(b"fingerprint") for table in tables]
    if None in prints or prints[0] != prints[1]:
        raise EvaluationError(
            f"{first} and {second} are predictions on different pictures or captions; "
            "evaluate both by one protocol"
        )
    return {
        direction: differences(*(_totals(table, direction) for table in tables), seed=seed)
        for direction in DIRECTIONS
    }


def _read(path: Path) -> pa.Table:
    if not path.is_file():
        raise EvaluationError(f"No such file: {path}")
    try:
        return pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise EvaluationError(f"{path} is no Parquet file: {error}") from error


def _totals(table: pa.Table, direction: str) -> Totals:
    """Add up the measures of one direction by picture, pictures sorted by their ids."""
    some = table.filter(pa.compute.equal(table["direction"], direction))
    _, group = np.unique(np.array(some["image"].to_pylist()), return_inverse=True)
    names = [name for name in some.column_names if name not in NO_MEASURES]
    values = {name: some[name].to_numpy().astype(np.float64) for name in names}
    return Totals.of(values, group.astype(np.int64), int(group.max()) + 1)
