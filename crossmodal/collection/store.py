"""The one source of truth of a collection: a Lance table, changed by atomic commits only."""

import contextlib
import datetime
import json
import logging
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import lance
import pyarrow as pa

from crossmodal.collection import schema
from crossmodal.collection.pen import LOCK, pen
from crossmodal.collection.schema import StoredRecord
from crossmodal.collection.snapshot import FORMAT, SMALL_FORMAT, WIDENING, Snapshot, damage_told, literals
from crossmodal.encoders.base import EncoderCard
from crossmodal.encoders.runtime.cache import SCRATCH
from crossmodal.errors import CollectionError
from crossmodal.index import Storage
from crossmodal.refusals import storage_errors

logger = logging.getLogger("crossmodal")

TABLE = "records.lance"
INDEX = "index"
ENCODER = "encoder"
FRAGMENTS_TO_COMPACT = 8
KEEP_VERSIONS = datetime.timedelta(hours=1)


class Store(Snapshot):
    """The table of one collection: a snapshot that can be changed, and renewed."""

    def __init__(self, path: Path, dataset: lance.LanceDataset) -> None:
        self._seen = _state(path)
        super().__init__(path, dataset)

    @classmethod
    def create(
        cls,
        path: Path,
        encoder: EncoderCard,
        storage: Storage = "float32",
        keep: Callable[[Path], None] = lambda folder: None,
    ) -> "Store":
        """Make an empty table, in one commit.

        :param keep: writes into a folder beside the table what the encoder needs. That may take minutes, and
            comes first: a kill in between leaves no collection that cannot be read.
        :raises CollectionError: when there is a collection already, or a folder with other things in it.
        :raises StorageError: when the disk refuses.
        """
        if path.exists() and not is_collection(path) and not _is_free(path):
            raise CollectionError(f"{path} exists and is no collection; choose a new path or an empty folder")
        stated = {"format": FORMAT, "id": uuid.uuid4().hex, "encoder": encoder.to_dict()}
        if storage != "float32":
            stated |= {"format": SMALL_FORMAT, "storage": storage}
        columns = schema.base_schema(encoder.dim, storage)
        empty = columns.with_metadata({"crossmodal": json.dumps(stated)})
        made_here = not path.exists()
        with storage_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        try:
            with pen(path):
                if is_collection(path):
                    raise CollectionError(
                        f"{path} holds a collection already; open it, or choose another path"
                    )
                for left in (path / ENCODER, *path.glob(f"{SCRATCH}*")):  # by a creation that was killed
                    shutil.rmtree(left, ignore_errors=True)
                with storage_errors(path):
                    keep(path / ENCODER)
                    dataset = lance.write_dataset(
                        empty.empty_table(), str(path / TABLE), mode="create", enable_stable_row_ids=True
                    )
        except BaseException:
            if made_here and not is_collection(path):
                clear(path)
            raise
        return cls(path, dataset)

    @classmethod
    def open(cls, path: Path) -> "Store":
        """Open the newest version.

        :raises CollectionError: when there is none at this path.
        """
        if not is_collection(path):
            if path.exists() and not _is_free(path):
                raise CollectionError(f"{path} is no collection; give the folder that crossmodal index made")
            raise CollectionError(f"{path} does not exist; make it with: crossmodal index SOURCE {path}")
        with damage_told(path):
            return cls(path, lance.dataset(str(path / TABLE)))

    def newest(self) -> "Store":
        """Give the newest version: this very object when nothing has changed.

        :raises CollectionError: when the collection was removed, or another one stands at its path.
        """
        if self._seen == _state(self.path):
            with storage_errors(self.path):
                if self._dataset.latest_version == self.version:
                    return self
        newest = Store.open(self.path)
        if newest.identity.id != self.identity.id:
            raise CollectionError(f"{self.path} was replaced by another collection; open it again")
        return newest

    def append(self, records: Sequence[StoredRecord]) -> None:
        """Add records whose keys are new, in one commit."""
        table = self._fitted(records)
        with storage_errors(self.path):
            self._dataset = lance.write_dataset(table, self._dataset, mode="append")

    def upsert(self, records: Sequence[StoredRecord]) -> None:
        """Replace records by key, surplus captions included, in one commit; new ones are added."""
        table = self._fitted(records)
        mine = f"key IN ({literals([record.key for record in records])})"
        with storage_errors(self.path):
            merge = self._dataset.merge_insert(list(schema.IDENTITY)).when_matched_update_all()
            merge.when_not_matched_insert_all().when_not_matched_by_source_delete(mine).execute(table)

    def delete(self, keys: Sequence[str]) -> None:
        """Delete records with all their rows, in one commit."""
        with storage_errors(self.path):
            self._dataset.delete(f"key IN ({literals(keys)})")

    def ensure_columns(self, metadata: Mapping[str, pa.DataType]) -> None:
        """Make room for metadata: new columns are added, too narrow ones widened."""
        names = {field.name.lower(): field for field in self._dataset.schema}
        fresh = [pa.field(name, kind) for name, kind in metadata.items() if name.lower() not in names]
        with storage_errors(self.path):
            if fresh:
                self._dataset.add_columns(pa.schema(fresh))
            for name, kind in metadata.items():
                field = names.get(name.lower())
                if field is not None and (wide := schema.wider(field.type, kind)) != field.type:
                    self._widen(field.name, wide)

    def rename_encoder(self, name: str) -> None:
        """Note by which name the encoder is found now: the folder of a checkpoint may be moved."""
        stated = json.loads(self._dataset.schema.metadata[b"crossmodal"])
        stated["encoder"]["name"] = name
        with storage_errors(self.path):
            self._dataset.update_schema_metadata({"crossmodal": json.dumps(stated)})

    def clear_if_empty(self) -> bool:
        """Remove the whole collection if it has no rows, and say whether."""
        empty = self.count() == 0
        if empty:
            clear(self.path)
        return empty

    def _widen(self, name: str, kind: pa.DataType) -> None:
        """Rewrite a column in a wider type; an interruption in between is mended by ``finish_widening``."""
        logger.warning("column %r now holds values of type %s, as the new records need", name, kind)
        sql = "DOUBLE" if pa.types.is_floating(kind) else "STRING"
        self._dataset.add_columns({f"{WIDENING}{name}": f"CAST(`{name}` AS {sql})"})
        self._dataset.drop_columns([name])
        self._dataset.alter_columns({"path": f"{WIDENING}{name}", "name": name})

    def finish_widening(self) -> None:
        """Complete or undo what an interrupted ``_widen`` left behind."""
        names = self._dataset.schema.names
        for left in [n for n in names if n.startswith(WIDENING)]:
            with storage_errors(self.path):
                if left.removeprefix(WIDENING) in names:
                    self._dataset.drop_columns([left])
                else:
                    self._dataset.alter_columns({"path": left, "name": left.removeprefix(WIDENING)})

    def optimise(self) -> None:
        """Merge small fragments, index the keys, and forget versions older than an hour."""
        with storage_errors(self.path):
            if len(self._dataset.get_fragments()) >= FRAGMENTS_TO_COMPACT:
                self._dataset.optimize.compact_files()
                self._dataset.create_scalar_index("key", "BTREE", replace=True)
                self._forget_old_versions()

    def _forget_old_versions(self) -> None:
        """Delete what no reader can need: a reader moves on within ``KEEP_VERSIONS`` of a newer version.

        The newest of the old versions stays, however long ago it was made: it may be current until now.
        """
        now = datetime.datetime.now()
        old = [v["timestamp"] for v in self._dataset.versions() if now - v["timestamp"] > KEEP_VERSIONS]
        if old:
            margin = datetime.timedelta(seconds=1)
            self._dataset.cleanup_old_versions(older_than=now - max(old) + margin)

    def _fitted(self, records: Sequence[StoredRecord]) -> pa.Table:
        """Lay out records in the table's own columns and order."""
        return schema.to_table(records, self._dataset.schema)


def is_collection(path: Path) -> bool:
    """Say whether a folder holds a collection with at least one committed version."""
    versions = path / TABLE / "_versions"
    return versions.is_dir() and any(p.suffix == ".manifest" for p in versions.iterdir())


def clear(path: Path) -> None:
    """Remove what a collection keeps in its folder, and the folder if nothing else is in it."""
    shutil.rmtree(path / TABLE, ignore_errors=True)
    shutil.rmtree(path / ENCODER, ignore_errors=True)
    for file in (path / INDEX).glob("*.index*"):
        file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # other things are in the folder, and stay
        if (path / INDEX).is_dir():
            (path / INDEX).rmdir()
        (path / LOCK).unlink(missing_ok=True)
        path.rmdir()


def _is_free(path: Path) -> bool:
    """Say whether a folder has nothing in it but what an interrupted creation or a file browser leaves."""
    if not path.is_dir():
        return False
    names = {p.name for p in path.iterdir()}
    if LOCK in names:  # else a folder of that name is a person's own
        names = {name for name in names if name != ENCODER and not name.startswith(SCRATCH)}
    return names <= {TABLE, LOCK, ".DS_Store"}


def _state(path: Path) -> tuple[int, int]:
    """Give what changes with every commit, and when another table takes this one's place."""
    try:
        stat = (path / TABLE / "_versions").stat()
    except OSError:
        return (0, 0)
    return (stat.st_ino, stat.st_mtime_ns)
