"""The collection: what people keep, change and ask."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from crossmodal.collection import schema, verifying
from crossmodal.collection.adding import Adder, AddReport, Progress
from crossmodal.collection.agreement import Witness
from crossmodal.collection.pen import pen
from crossmodal.collection.query import check_k, check_least, embed_query, make_terms
from crossmodal.collection.schema import StoredRecord
from crossmodal.collection.searcher import Searcher
from crossmodal.collection.snapshot import Snapshot
from crossmodal.collection.store import ENCODER, Store
from crossmodal.encoders import Kept, load_encoder
from crossmodal.encoders.base import Embeddings, Encoder, EncoderCard
from crossmodal.encoders.calibration import read_facts
from crossmodal.errors import CollectionError, EncoderError, QueryError, unknown
from crossmodal.index import STORAGES, Storage
from crossmodal.sources import Source, open_source
from crossmodal.types import MODALITIES, Hit, ImageLike, Modality, Record, Term


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionInfo:
    """The facts of a collection."""

    path: str
    records: int
    captions: int
    rows: int
    version: int
    encoder: dict[str, str | int]
    storage: Storage
    bytes_per_vector: int
    """What the table holds of each vector; ``index`` says how much of it a search reads."""
    index: dict[str, Any]
    columns: dict[str, str]
    sources: dict[str, int]
    bytes_on_disk: int

    def to_dict(self) -> dict[str, Any]:
        """Give the facts as plain values for JSON."""
        return asdict(self)


class Collection:
    """Records and their embeddings on disk, searched with words, pictures or both.

    Several processes may read while one writes; a reader sees what was committed before its search began. Its
    methods may be called from several threads.
    """

    def __init__(self, store: Store, encoder: Encoder | None, backend: str) -> None:
        self._store = store
        self._encoder = encoder
        self._backend = backend
        self._searcher = Searcher(store.path)
        self._lock = threading.RLock()
        self._pen = threading.Lock()
        if encoder is not None:
            self._refuse_other(encoder)

    @classmethod
    def create(
        cls, path: str | os.PathLike[str], encoder: Encoder, storage: Storage = "float32"
    ) -> "Collection":
        """Make an empty collection for the embeddings of ``encoder``.

        :param storage: what a number of a vector is kept as: ``float32``, ``float16``, ``int8``, or
            ``binary``: a bit to search by, and int8 to score the best again. ``add`` reports what it costs.
        :raises CollectionError: when the path holds something already, or the storage is unknown.
        :raises StorageError: when the disk refuses.
        """
        if storage not in STORAGES:
            raise CollectionError(unknown("storage", str(storage), STORAGES))
        store = Store.create(Path(path), encoder.card, storage, encoder.keep)
        return cls(store, encoder, encoder.card.backend)

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], encoder: Encoder | None = None, *, backend: str = "auto"
    ) -> "Collection":
        """Open a collection; the encoder it was made with is loaded when first needed, unless given.

        :raises CollectionError: when there is none, or ``encoder`` is not the one it was made with.
        """
        return cls(Store.open(Path(path)), encoder, backend)

    @property
    def path(self) -> Path:
        """Where the collection lies."""
        return self._store.path

    @property
    def dim(self) -> int:
        """The dimensions of a vector."""
        return self._store.identity.encoder.dim

    @property
    def storage(self) -> Storage:
        """What a number of a vector is kept as."""
        return self._store.identity.storage

    @property
    def encoder(self) -> Encoder:
        """The encoder whose embeddings the collection holds.

        :raises CollectionError: when what loads by its name today is another one; both are named.
        """
        with self._lock:
            if self._encoder is None:
                encoder = load_encoder_of(self._store.identity.encoder, self.path, backend=self._backend)
                self._refuse_other(encoder)
                self._encoder = encoder
            return self._encoder

    @property
    def card(self) -> EncoderCard:
        """The facts of the encoder the collection was made with; it is not loaded for them."""
        return self._store.identity.encoder

    def __len__(self) -> int:
        """Give the number of records."""
        return self._current().count("modality = 'image'")

    def __repr__(self) -> str:
        return f"Collection({str(self.path)!r}, encoder={self._store.identity.encoder.name!r})"

    # -- changing -----------------------------------------------------------------------------------------

    def add(
        self,
        source_or_records: str | os.PathLike[str] | Source | Record | Iterable[Record],
        *,
        prune: bool = False,
        progress: Callable[[Progress], None] | None = None,
        batch_size: int | None = None,
    ) -> AddReport:
        """Bring in records: new ones are added, changed ones updated, unchanged ones not embedded again.

        :param prune: remove this source's records that it no longer holds, once it was read to its end and
            whole: nothing is removed while a part of it could not be read.
        :param progress: called after each batch.
        :raises SourceError: when the source cannot be read.
        :raises CollectionError: when another process is writing.
        """
        records, source = _as_records(source_or_records)
        total = source.count if source else len(records) if isinstance(records, Sized) else None
        with self._writing() as store:
            started = time.monotonic()
            self._searcher.index(store, "image")  # what is wrong with the index is told before the work
            if self.encoder.card.name != store.identity.encoder.name:
                store.rename_encoder(self.encoder.card.name)
            name = source.spec if source else ""
            witness = Witness(self.encoder, self.storage)
            adder = Adder(store, witness, source=name, total=total, progress=progress)
            adder.run(records, batch_size)
            report = adder.report
            report.agreement = witness.measure()
            if source:
                report.skipped.extend(source.skipped)
                report.hidden = source.hiding
                if prune and not source.hiding:
                    left = adder.seen.union(key for key, _ in source.skipped)
                    report.removed = self._prune(store, name, left)
            if report.added or report.updated or report.removed:
                store.optimise()
            self._searcher.save(self._current())
            report.seconds = time.monotonic() - started
        return report

    def discard_if_empty(self) -> bool:
        """Remove the whole collection from the disk if no record is in it, and say whether that was done."""
        with self._writing() as store:
            return store.clear_if_empty()

    def remove(self, keys: str | Iterable[str]) -> int:
        """Remove records with all their rows and give how many.

        :raises CollectionError: when a key is not there; nothing is removed then.
        """
        wanted = [keys] if isinstance(keys, str) else list(dict.fromkeys(keys))
        with self._writing() as store:
            there = store.records(wanted)
            absent = [key for key in wanted if key not in there]
            if absent:
                some = ", ".join(absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
                raise CollectionError(f"{self.path} has no record {some}; nothing was removed")
            if wanted:
                store.delete(wanted)
        return len(wanted)

    def verify(self, *, repair: bool = False) -> "verifying.VerifyReport":
        """Check every row, every vector and the search index; ``repair`` mends what can be mended."""
        if not repair:
            return verifying.verify(self._current())
        with self._writing() as store:
            report = verifying.repair(store)
        with self._lock:
            self._searcher = Searcher(self.path)
        return report

    @staticmethod
    def _prune(store: Store, source: str, keep: set[str]) -> int:
        gone = [key for key in store.keys(source) if key not in keep]
        if gone:
            store.delete(gone)
        return len(gone)

    # -- asking -------------------------------------------------------------------------------------------

    def search(
        self,
        text: str | None = None,
        image: ImageLike | None = None,
        terms: Sequence[tuple[str, ImageLike, float] | Term] | None = None,
        target: Modality = "image",
        k: int = 10,
        where: str | None = None,
        min_score: float | None = None,
    ) -> list[Hit]:
        """Find the pictures (or, with ``target="text"``, the captions) nearest to what is asked.

        ``terms`` weigh: ``[("text", "red bus", 1.0), ("text", "people", -0.4), ("image", path, 0.5)]``.
        ``where`` is an SQL condition on the collection's columns; it is applied before the search, so that
        ``k`` hits come if so many rows pass. The score is the cosine between query and hit.

        :raises QueryError: when the query is empty, ``k`` below 1, or the filter does not fit.
        :raises ImageError: when the query picture cannot be read.
        """
        if target not in MODALITIES:
            raise QueryError(unknown("target", str(target), MODALITIES))
        k, least = check_k(k), check_least(min_score)
        parts = make_terms(text, image, terms)
        if where is not None:
            self._current().check_filter(where)
        query = embed_query(parts, self.encoder)
        store, found = self._nearest(query, target, k, where)
        rows = store.take([row for row, _ in found])
        hits = [_as_hit(rows[row], score) for row, score in found]
        return [hit for hit in hits if hit.score >= least]

    def _nearest(
        self, query: Embeddings, target: Modality, k: int, where: str | None
    ) -> tuple[Snapshot, list[tuple[int, float]]]:
        """Give the best row ids with their scores, and the version of the table they are from."""
        while True:
            store = self._current()
            index = self._searcher.index(store, target)
            allowed = None if where is None else store.matching(where, target)
            scores, ids = index.search(query[None], min(k, max(len(index), 1)), allowed)
            # If another thread brought the index further meanwhile, rows and answer may not belong together.
            if self._searcher.version(target) == store.version:
                pairs = zip(ids[0].tolist(), scores[0].tolist(), strict=True)
                return store, [(row, score) for row, score in pairs if row >= 0]

    def get(self, keys: Sequence[str]) -> list[StoredRecord]:
        """Give the records that exist among ``keys``, in their order."""
        records = self._current().records(keys)
        return [records[key] for key in keys if key in records]

    def captions(self, limit: int) -> list[str]:
        """Give some captions, spread over the whole collection."""
        return self._current().some_captions(limit)

    def info(self) -> CollectionInfo:
        """Give the collection's facts."""
        store = self._current()
        records = store.count("modality = 'image'")
        return CollectionInfo(
            path=str(self.path),
            records=records,
            captions=store.count() - records,
            rows=store.count(),
            version=store.version,
            encoder=store.identity.encoder.to_dict(),
            storage=store.identity.storage,
            bytes_per_vector=schema.bytes_per_vector(store.identity.encoder.dim, store.identity.storage),
            index=self._searcher.index(store, "image").describe(),
            columns=store.columns,
            sources=store.sources(),
            bytes_on_disk=_bytes_below(self.path),
        )

    # -- inside -------------------------------------------------------------------------------------------

    def _current(self) -> Store:
        """Give the newest committed version."""
        with self._lock:
            self._store = self._store.newest()
            return self._store

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Store]:
        """Give the newest version to write to; threads of this process wait for each other."""
        self._current()
        with self._pen, pen(self.path):
            self._current()
            store = Store.open(self.path)
            store.finish_widening()
            yield store

    def _refuse_other(self, encoder: Encoder) -> None:
        made_with = self._store.identity.encoder
        if encoder.card.fingerprint != made_with.fingerprint:
            raise CollectionError(
                f"{self.path} was made with encoder {_named(made_with)} "
                f"(fingerprint {made_with.fingerprint}), not with {_named(encoder.card)} "
                f"(fingerprint {encoder.card.fingerprint}); their embeddings cannot be compared. "
                "Open it with its own encoder, or index into a new collection"
            )


def load_encoder_of(
    card: EncoderCard, path: Path, *, backend: str = "auto", name: str | None = None
) -> Encoder:
    """Load the encoder of the collection at a path as its card says, in the same arithmetic.

    :param backend: any in float32; else ``auto`` is the one the collection was made with.
    :param name: another spec that a person believes to name the same encoder.
    :raises EncoderError: when it cannot be loaded, or this machine cannot compute in its dtype.
    """
    if card.dtype != "float32" and backend == "auto":
        backend = card.backend
    kept = None
    if card.dtype == "int8":
        # A prefix of an encoder has a fingerprint of its own; the tower beside the collection knows its.
        folder = path / ENCODER
        identity = read_facts(folder).get("fingerprint", card.fingerprint)
        kept = Kept(fingerprint=identity, folder=folder)
    try:
        return load_encoder(
            name or card.name, backend=backend, dtype=card.dtype, calibration=kept, dim=card.dim
        )
    except EncoderError as error:
        if name is not None or Path(card.name).exists() or not Path(card.name).is_absolute():
            raise
        raise EncoderError(
            f"{path} was made with the checkpoint {card.name}, which is not there any more; put it back, or "
            f"say where it is now: crossmodal index SOURCE {path} --encoder FOLDER"
        ) from error


def _named(card: EncoderCard) -> str:
    """Name an encoder, and its arithmetic where that sets it apart."""
    return card.name if card.dtype == "float32" else f"{card.name} in {card.dtype} on {card.backend}"


def _as_records(given: Any) -> tuple[Iterable[Record], Source | None]:
    """Give what was handed to ``add`` as records, and as the source they come from if it is one."""
    if isinstance(given, Source):
        return given, given
    if isinstance(given, str | os.PathLike):
        source = open_source(given)
        return source, source
    return ([given] if isinstance(given, Record) else given), None


def _bytes_below(folder: Path) -> int:
    """Add up the sizes of all files; one that another process removes meanwhile counts nothing."""
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += file.stat().st_size if file.is_file() else 0
    return total


def _as_hit(row: dict[str, Any], score: float) -> Hit:
    metadata = {
        n: v for n, v in row.items() if n not in _HIT_COLUMNS and not n.startswith("_") and v is not None
    }
    return Hit(
        key=row["key"],
        target=row["modality"],
        score=score,
        uri=row["uri"],
        text=row["text"],
        metadata=metadata,
    )


_HIT_COLUMNS = {"key", "modality", "uri", "text"}
