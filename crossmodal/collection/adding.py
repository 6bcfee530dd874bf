"""Bringing records into a collection: what is known stays, what is new is embedded, and nothing is lost.

Work is committed as it goes and when it is interrupted; what a kill takes was embedded since the last commit,
and the next run embeds just that.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from crossmodal.collection import schema
from crossmodal.collection.agreement import Agreement
from crossmodal.collection.schema import StoredRecord
from crossmodal.collection.store import Store
from crossmodal.encoders.base import Embeddings, Encoder
from crossmodal.pipeline import Embedded, Work, embed_records
from crossmodal.types import MetadataValue, Record

logger = logging.getLogger("crossmodal")

LOOKUP = 256
"""Records compared with the table at a time."""

CARRIED_BYTES = 64 * 2**20
"""Fewer are compared at a time when the pictures they carry with them have so many bytes."""

COMMIT_RECORDS = 1024
COMMIT_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an ``add`` has come; ``total`` is None where the source cannot tell."""

    done: int
    total: int | None
    committed: int


@dataclass(slots=True, kw_only=True)
class AddReport:
    """What an ``add`` did; every record of the source is in exactly one of the counts or in ``skipped``."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    replaced: dict[str, int] = field(default_factory=dict)
    """For each other source: how many of its records had the same key and were updated from this one."""
    hidden: list[str] = field(default_factory=list)
    """Parts of the source behind which unknown records lie; while there are any, nothing is pruned."""
    agreement: Agreement | None = None
    """What small vectors cost, measured on what was embedded; None where nothing is smaller than it was."""
    cut: int = 0
    """Captions embedded now that were longer than the encoder's limit, and so were cut."""
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Give the report as plain values for JSON."""
        told: dict[str, Any] = {
            "added": self.added,
            "updated": self.updated,
            "unchanged": self.unchanged,
            "removed": self.removed,
            "skipped": [list(pair) for pair in self.skipped],
            "texts_cut": self.cut,
            "seconds": round(self.seconds, 3),
        }
        return told | ({"agreement": self.agreement.to_dict()} if self.agreement else {})


class Adder:
    """One pass of records into a store."""

    def __init__(
        self,
        store: Store,
        encoder: Encoder,
        *,
        source: str = "",
        total: int | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self.report = AddReport()
        self.seen: set[str] = set()
        self._store = store
        self._encoder = encoder
        self._source = source
        self._total = total
        self._progress = progress
        self._stored: dict[str, StoredRecord] = {}
        self._columns: dict[str, str] = {}
        self._warned: set[str] = set()
        self._fresh: list[StoredRecord] = []
        self._changed: list[StoredRecord] = []
        self._committed = 0
        self._last_commit = time.monotonic()

    def run(self, records: Iterable[Record], batch_size: int | None = None) -> None:
        """Bring in all records; what is embedded already is committed also when this is interrupted."""
        started = time.monotonic()
        try:
            for batch in embed_records(self._plan(records), self._encoder, batch_size=batch_size):
                for done in batch:
                    self._settle(done)
                texts = [text for done in batch if not done.failure for text in done.work.texts]
                self.report.cut += self._encoder.texts_cut(texts)
                if len(self._fresh) + len(self._changed) >= COMMIT_RECORDS or self._due():
                    self._commit()
                self._tell()
        finally:
            self._commit()
            self.report.seconds = time.monotonic() - started
        self._tell()

    # -- before embedding: what is wanted of each record --------------------------------------------------

    def _plan(self, records: Iterable[Record]) -> Iterator[Work]:
        iterator = iter(records)
        while chunk := _chunk(iterator):
            accepted = [record for record in chunk if self._accept(record)]
            self._stored.update(self._store.records([r.key for r in accepted], embeddings=True))
            for record in accepted:
                yield self._work(record)

    def _accept(self, record: Record) -> bool:
        """Refuse what cannot be a row, with its reason."""
        reason = _malformed(record)
        if not reason and record.key in self.seen:
            reason = "the key appears twice in this source; the first one is taken"
        if reason:
            self.report.skipped.append((_printable(str(record.key)), reason))
            return False
        self.seen.add(record.key)
        return True

    def _work(self, record: Record) -> Work:
        """Say what of a record must be embedded: what the table does not hold yet."""
        captions = tuple(_printable(c) for c in record.captions if c.strip())
        record = replace(record, captions=captions, metadata=self._named(record))
        known = self._stored.get(record.key)
        if known is None:
            return Work(record=record, texts=captions)
        fresh = tuple(caption for caption in dict.fromkeys(captions) if caption not in known.captions)
        return Work(record=record, texts=fresh, known_digest=known.digest, known_stamp=known.stamp)

    def _named(self, record: Record) -> dict[str, MetadataValue]:
        """Give the record's metadata under the names of the table's columns, without None and NaN."""
        named: dict[str, MetadataValue] = {}
        for name, given in record.metadata.items():
            value = given.item() if isinstance(given, np.generic) else given
            if value is None or (isinstance(value, float) and math.isnan(value)):
                continue
            column = self._column(name)
            if column in named:
                self._warn_once(f"metadata {name!r} is left out where another has the column {column!r}, too")
            else:
                named[column] = value
        return named

    def _column(self, name: str) -> str:
        """Name the column of a metadata field, telling once when it is another name."""
        if name not in self._columns:
            wanted = schema.column_name(name)
            taken = (*self._store.columns, *self._columns.values())
            self._columns[name] = next((c for c in taken if c.lower() == wanted.lower()), wanted)
            if self._columns[name] != name:
                self._warn_once(f"metadata {name!r} is stored as column {self._columns[name]!r}")
        return self._columns[name]

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            logger.warning(message)

    # -- after embedding: which rows there will be --------------------------------------------------------

    def _settle(self, done: Embedded) -> None:
        """Put one record where it belongs: skipped, unchanged, added or updated."""
        record = done.work.record
        known = self._stored.pop(record.key, None)
        if done.failure:
            kept = "; the state indexed before is kept" if known else ""
            self.report.skipped.append((record.key, done.failure + kept))
            return
        row = self._row(done, known)
        if known is None:
            self.report.added += 1
            self._fresh.append(row)
            return
        if self._same(row, known):
            self.report.unchanged += 1
            if row.stamp and row.stamp != known.stamp:
                self._changed.append(row)
            return
        self.report.updated += 1
        if known.source and known.source != self._source:
            self.report.replaced[known.source] = self.report.replaced.get(known.source, 0) + 1
        self._changed.append(row)

    def _row(self, done: Embedded, known: StoredRecord | None) -> StoredRecord:
        """Combine the record with its embeddings, old and new."""
        record = done.work.record
        vectors = dict(zip(done.work.texts, done.text_embeddings, strict=True))
        image = done.image_embedding
        if known is not None:
            assert known.text_embeddings is not None
            vectors = dict(zip(known.captions, known.text_embeddings, strict=True)) | vectors
            image = known.image_embedding if image is None else image
        return StoredRecord(
            key=record.key,
            uri=record.uri,
            captions=record.captions,
            metadata=record.metadata,
            source=self._source,
            digest=done.digest,
            stamp=done.stamp,
            image_embedding=image,
            text_embeddings=self._stack([vectors[caption] for caption in record.captions]),
        )

    def _stack(self, vectors: Sequence[Embeddings]) -> Embeddings:
        return np.stack(vectors) if vectors else np.empty((0, self._encoder.card.dim), np.float32)

    @staticmethod
    def _same(row: StoredRecord, known: StoredRecord) -> bool:
        return (
            (row.uri, row.captions, row.source, row.digest)
            == (known.uri, known.captions, known.source, known.digest)
            and row.metadata.keys() == known.metadata.keys()
            and all(schema.stored_alike(value, known.metadata[name]) for name, value in row.metadata.items())
        )

    # -- commits ------------------------------------------------------------------------------------------

    def _due(self) -> bool:
        return bool(self._fresh or self._changed) and time.monotonic() - self._last_commit >= COMMIT_SECONDS

    def _commit(self) -> None:
        # The lists are emptied first: an interruption may then cost work, but never commits a row twice.
        fresh, self._fresh = self._fresh, []
        changed, self._changed = self._changed, []
        if fresh or changed:
            self._store.ensure_columns(_column_types(fresh + changed))
        if fresh:
            self._store.append(fresh)
        if changed:
            self._store.upsert(changed)
        self._committed += len(fresh) + len(changed)
        self._last_commit = time.monotonic()

    def _tell(self) -> None:
        if self._progress:
            report = self.report
            done = report.added + report.updated + report.unchanged + len(report.skipped)
            self._progress(Progress(done=done, total=self._total, committed=self._committed))


def _column_types(rows: Sequence[StoredRecord]) -> dict[str, Any]:
    """Give the column type that the metadata of these rows needs."""
    values: dict[str, list[MetadataValue]] = {}
    for row in rows:
        for name, value in row.metadata.items():
            values.setdefault(name, []).append(value)
    kinds = {name: schema.arrow_type(column) for name, column in values.items()}
    return {name: kind for name, kind in kinds.items() if kind is not None}


def _malformed(record: Record) -> str:
    """Say why a record cannot be a row; records may come from callers that no type checker saw."""
    key: Any = record.key
    captions: Any = record.captions
    if not isinstance(key, str):
        return f"the key is of type {type(key).__name__}; give a string"
    if isinstance(captions, str) or not all(isinstance(caption, str) for caption in captions):
        return "the captions are no sequence of strings; put a single one into a list"
    if not key.strip():
        return "the key is empty"
    if not _is_unicode(key) or not _is_unicode(record.uri):
        return "the name is not valid Unicode; rename the file"
    return ""


def _chunk(records: Iterator[Record]) -> list[Record]:
    """Take the next records: few enough to look up at once, and to hold where they carry their pictures."""
    chunk: list[Record] = []
    carried = 0
    for record in records:
        chunk.append(record)
        carried += len(record.image) if isinstance(record.image, bytes) else 0
        if len(chunk) == LOOKUP or carried >= CARRIED_BYTES:
            break
    return chunk


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _printable(text: str) -> str:
    """Replace what is no Unicode: lone surrogates that stand for undecodable bytes."""
    return text.encode("utf-8", "replace").decode()
