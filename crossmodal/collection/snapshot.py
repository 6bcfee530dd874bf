"""Reading the table of a collection, as it was at one version.

Row ids are stable: a row keeps its id through updates and compaction, so a search index may hold them, and
``_row_last_updated_at_version`` tells an index what it has missed.
"""

import contextlib
import json
import re
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
from crossmodal.errors import CollectionError, CrossmodalError
from crossmodal.index import STORAGES, Storage
from crossmodal.refusals import storage_errors
from crossmodal.types import Modality

FORMAT = "1"
SMALL_FORMAT = "2"
"""The format of what a version that knew float32 alone would misread."""

WIDENING = "_widening"
"""Begins the name of a column that is being rewritten in a wider type."""

PART = 8192
"""Rows that are read at a time where all are wanted."""

RowIds = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Which collection this is, whose embeddings it holds, and as what it keeps them."""

    id: str
    encoder: EncoderCard
    storage: Storage = "float32"


class Snapshot:
    """The rows of one collection at one version."""

    def __init__(self, path: Path, dataset: lance.LanceDataset) -> None:
        self.path = path
        self._dataset = dataset
        metadata = dataset.schema.metadata or {}
        if b"crossmodal" not in metadata:
            raise CollectionError(f"{path} is a Lance table, but no collection of ours; give another path")
        stated = json.loads(metadata[b"crossmodal"])
        storage = stated.get("storage", "float32")
        if stated["format"] not in (FORMAT, SMALL_FORMAT) or storage not in STORAGES:
            raise CollectionError(
                f"{path} was written in format {stated['format']} with {storage} vectors, this version reads "
                f"{FORMAT} and {SMALL_FORMAT} with {', '.join(STORAGES)}; upgrade crossmodal-retrieval"
            )
        card = EncoderCard(**stated["encoder"])
        self.identity = Identity(id=stated["id"], encoder=card, storage=storage)

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
        with damage_told(self.path):
            return int(self._dataset.count_rows(where))

    def count_changed(self, modality: Modality, *, after: int) -> int:
        """Count the rows of one modality that were added or updated after a version."""
        return self.count(f"modality = '{modality}' AND _row_last_updated_at_version > {after}")

    def records(self, keys: Sequence[str], *, embeddings: bool = False) -> dict[str, StoredRecord]:
        """Give the records that exist among ``keys``."""
        possible = [key for key in keys if _is_unicode(key)]
        if not possible:
            return {}
        return schema.to_records(self._read(self._names(embeddings), f"key IN ({literals(possible)})"))

    def iterate(self, *, embeddings: bool = False) -> Iterator[pa.Table]:
        """Give all rows, some at a time, with their ``_rowid``."""
        return self._read_in_parts(self._names(embeddings))

    def some_captions(self, limit: int) -> list[str]:
        """Give some captions, spread over the whole table."""
        ids = self.row_ids("text")
        places = np.linspace(0, len(ids) - 1, min(limit, len(ids)), dtype=np.int64)
        return [row["text"] for row in self.take(ids[places].tolist()).values()]

    def keys(self, source: str) -> list[str]:
        """Give the keys of all records that came from ``source``."""
        where = f"modality = 'image' AND _source = {literals([source])}"
        keys: list[str] = self._read(["key"], where)["key"].to_pylist()
        return keys

    def sources(self) -> dict[str, int]:
        """Give every source and how many records came from it."""
        table = self._read(["_source"], "modality = 'image'")
        return {entry["values"]: entry["counts"] for entry in table["_source"].value_counts().to_pylist()}

    def take(self, row_ids: Sequence[int]) -> dict[int, dict[str, Any]]:
        """Give rows by id, as far as they exist, without embeddings."""
        if not len(row_ids):
            return {}
        wanted = ", ".join(str(int(i)) for i in row_ids)
        rows = self._read(self._names(embeddings=False), f"_rowid IN ({wanted})").to_pylist()
        return {row.pop("_rowid"): row for row in rows}

    def row_ids(self, modality: Modality) -> RowIds:
        """Give the ids of all rows of one modality."""
        return _ids(self._read([], f"modality = '{modality}'"))

    def embeddings(self, modality: Modality, *, after: int = 0) -> Iterator[tuple[RowIds, Embeddings]]:
        """Give ids and vectors of one modality, some at a time: all, or those changed after a version."""
        changed = f" AND _row_last_updated_at_version > {after}" if after else ""
        columns = [name for name in schema.VECTOR_COLUMNS if name in self._dataset.schema.names]
        for table in self._read_in_parts(columns, f"modality = '{modality}'{changed}"):
            yield _ids(table), schema.embedding_matrix(table)

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
            return self._read(["modality"], condition, limit)
        except (ValueError, RuntimeError) as error:
            raise filters.refusal(where, str(error), self.columns) from None

    def _names(self, embeddings: bool) -> list[str]:
        names = self._dataset.schema.names
        return [name for name in names if embeddings or name not in schema.VECTOR_COLUMNS]

    def _read(self, columns: list[str], where: str, limit: int | None = None) -> pa.Table:
        """Read rows with their ``_rowid``."""
        with damage_told(self.path):
            return self._dataset.scanner(
                columns=columns, filter=where, with_row_id=True, limit=limit
            ).to_table()

    def _read_in_parts(self, columns: list[str], where: str | None = None) -> Iterator[pa.Table]:
        """Read rows with their ``_rowid``, some at a time."""
        with damage_told(self.path):
            scanner = self._dataset.scanner(columns=columns, filter=where, with_row_id=True, batch_size=PART)
            for batch in scanner.to_batches():
                yield pa.Table.from_batches([batch])


@contextlib.contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """Turn what Lance says of files that are torn or gone into one line.

    :raises CollectionError: in place of such an error; others pass, a filter that does not parse among them.
    """
    try:
        with storage_errors(path):
            yield
    except (OSError, ValueError, RuntimeError) as error:
        message = str(error)
        if isinstance(error, CrossmodalError) or not _DAMAGE.search(message):
            raise
        raise CollectionError(
            f"{path} is damaged, its files are torn or gone ({message.partition(', /')[0][:160]}); "
            "bring it back from a copy, or remove it and index again"
        ) from error


_DAMAGE = re.compile(
    r"LanceError\(IO\)|Not found:|corrupt|failed to decode|\.manifest|Invalid (?:data|footer)", re.IGNORECASE
)


def _is_unicode(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True


def literals(values: Sequence[str]) -> str:
    """Write strings as SQL literals, separated by commas."""
    return ", ".join("'" + value.replace("'", "''") + "'" for value in values)


def _ids(table: pa.Table) -> RowIds:
    ids: RowIds = table["_rowid"].to_numpy().astype(np.int64)
    return ids
