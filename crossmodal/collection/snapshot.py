"""Reading the table of a collection, as it was at one version.

Row ids are stable: a row keeps its id through updates and compaction, so a search index may hold them, and
``_row_last_updated_at_version`` tells an index what it has missed.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from crossmodal.collection import filters, schema
from crossmodal.collection.schema import StoredRecord
from crossmodal.encoders.base import Embeddings, EncoderCard
from crossmodal.errors import CollectionError
from crossmodal.refusals import storage_errors
from crossmodal.types import Modality

FORMAT = "1"
WIDENING = "_widening"
"""Begins the name of a column that is being rewritten in a wider type."""

RowIds = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Which collection this is, and whose embeddings it holds."""

    id: str
    encoder: EncoderCard


class Snapshot:
    """The rows of one collection at one version."""

    def __init__(self, path: Path, dataset: lance.LanceDataset) -> None:
        self.path = path
        self._dataset = dataset
        metadata = dataset.schema.metadata or {}
        if b"crossmodal" not in metadata:
            raise CollectionError(f"{path} is a Lance table, but no collection of ours; give another path")
        stated = json.loads(metadata[b"crossmodal"])
        if stated["format"] != FORMAT:
            raise CollectionError(
                f"{path} was written in format {stated['format']}, this version reads {FORMAT}; "
                "upgrade crossmodal-retrieval"
            )
        self.identity = Identity(id=stated["id"], encoder=EncoderCard(**stated["encoder"]))

    @property
    def version(self) -> int:
        """The version this object reads."""
        return int(self._dataset.version)

    @property
    def columns(self) -> dict[str, str]:
        """The columns a filter may name, with their types."""
        return {
            field.name: str(field.type)
            for field in self._dataset.schema
            if field.name in schema.FILTERABLE or schema.is_metadata(field.name)
        }

    def count(self, where: str | None = None) -> int:
        """Count rows."""
        return int(self._dataset.count_rows(where))

    def records(self, keys: Sequence[str], *, embeddings: bool = False) -> dict[str, StoredRecord]:
        """Give the records that exist among ``keys``."""
        if not keys:
            return {}
        return schema.to_records(self._scan(f"key IN ({literals(keys)})", embeddings))

    def iterate(self, *, embeddings: bool = False, batch_rows: int = 8192) -> Iterator[pa.Table]:
        """Give all rows, some at a time, with their ``_rowid``."""
        columns = [n for n in self._dataset.schema.names if embeddings or n != "embedding"]
        scanner = self._dataset.scanner(columns=columns, with_row_id=True, batch_size=batch_rows)
        for batch in scanner.to_batches():
            yield pa.Table.from_batches([batch])

    def count_changed(self, modality: Modality, *, after: int) -> int:
        """Count the rows of one modality that were added or updated after a version."""
        return self.count(f"modality = '{modality}' AND _row_last_updated_at_version > {after}")

    def some_captions(self, limit: int) -> list[str]:
        """Give some captions, spread over the whole table."""
        ids = self.row_ids("text")
        places = np.linspace(0, len(ids) - 1, min(limit, len(ids)), dtype=np.int64)
        return [row["text"] for row in self.take(ids[places].tolist()).values()]

    def keys(self, source: str) -> list[str]:
        """Give the keys of all records that came from ``source``."""
        where = f"modality = 'image' AND _source = {literals([source])}"
        keys: list[str] = self._dataset.scanner(columns=["key"], filter=where).to_table()["key"].to_pylist()
        return keys

    def sources(self) -> dict[str, int]:
        """Give every source and how many records came from it."""
        table = self._dataset.scanner(columns=["_source"], filter="modality = 'image'").to_table()
        return {entry["values"]: entry["counts"] for entry in table["_source"].value_counts().to_pylist()}

    def take(self, row_ids: Sequence[int]) -> dict[int, dict[str, Any]]:
        """Give rows by id, as far as they exist, without embeddings."""
        if not len(row_ids):
            return {}
        columns = [n for n in self._dataset.schema.names if n != "embedding"]
        where = f"_rowid IN ({', '.join(str(int(i)) for i in row_ids)})"
        table = self._dataset.scanner(columns=columns, filter=where, with_row_id=True).to_table()
        return {row.pop("_rowid"): row for row in table.to_pylist()}

    def row_ids(self, modality: Modality) -> RowIds:
        """Give the ids of all rows of one modality."""
        scanner = self._dataset.scanner(columns=[], filter=f"modality = '{modality}'", with_row_id=True)
        return _ids(scanner.to_table())

    def check_filter(self, where: str) -> None:
        """Refuse a filter that does not fit, before any work.

        :raises QueryError: when it does not parse or names an unknown column (the message lists the columns).
        """
        self._filtered(where, limit=1)

    def matching(self, where: str, modality: Modality) -> RowIds:
        """Give the ids of the rows of one modality that pass a filter.

        The filter is evaluated by itself, never pasted into another, so it cannot reach beyond itself.

        :raises QueryError: when it does not parse or names an unknown column (the message lists the columns).
        """
        table = self._filtered(where)
        return _ids(table.filter(pc.equal(table["modality"], modality)))

    def _filtered(self, where: str, limit: int | None = None) -> pa.Table:
        condition = filters.enclosed(where, self.columns)
        try:
            return self._dataset.scanner(
                columns=["modality"], filter=condition, with_row_id=True, limit=limit
            ).to_table()
        except (ValueError, OSError, RuntimeError) as error:
            raise filters.refusal(where, str(error), self.columns) from None

    def embeddings(self, modality: Modality, *, after: int = 0) -> Iterator[tuple[RowIds, Embeddings]]:
        """Give ids and vectors of one modality, some at a time: all, or those changed after a version."""
        where = f"modality = '{modality}'"
        if after:
            where += f" AND _row_last_updated_at_version > {after}"
        scanner = self._dataset.scanner(columns=["embedding"], filter=where, with_row_id=True)
        for batch in scanner.to_batches():
            table = pa.Table.from_batches([batch])
            yield _ids(table), schema.embedding_matrix(table)

    def _scan(self, where: str, embeddings: bool) -> pa.Table:
        columns = [n for n in self._dataset.schema.names if embeddings or n != "embedding"]
        with storage_errors(self.path):
            return self._dataset.scanner(columns=columns, filter=where).to_table()


def literals(values: Sequence[str]) -> str:
    """Write strings as SQL literals, separated by commas."""
    return ", ".join("'" + value.replace("'", "''") + "'" for value in values)


def _ids(table: pa.Table) -> RowIds:
    ids: RowIds = table["_rowid"].to_numpy().astype(np.int64)
    return ids
