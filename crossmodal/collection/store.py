"""The one source of truth of a collection: a Lance table, changed by atomic commits only."""

import datetime
import json
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import lance
import pyarrow as pa

from crossmodal.collection import schema
from crossmodal.collection.schema import StoredRecord
from crossmodal.collection.snapshot import FORMAT, Snapshot, literals
from crossmodal.encoders.base import EncoderCard
from crossmodal.errors import CollectionError
from crossmodal.refusals import storage_errors

TABLE = "records.lance"
OWN_FILES = {TABLE, "index", "writer.lock"}
FRAGMENTS_TO_COMPACT = 8
KEEP_VERSIONS = datetime.timedelta(hours=1)
WIDENING = "_widening"


class Store(Snapshot):
    """The table of one collection: a snapshot that can be changed, and renewed."""

    @classmethod
    def create(cls, path: Path, encoder: EncoderCard) -> "Store":
        """Make an empty table, in one commit.

        :raises CollectionError: when there is a collection already, or a folder with other things in it.
        :raises StorageError: when the disk refuses.
        """
        if is_collection(path):
            raise CollectionError(f"{path} holds a collection already; open it, or choose another path")
        if path.exists() and (not path.is_dir() or any(p.name not in OWN_FILES for p in path.iterdir())):
            raise CollectionError(f"{path} exists and is no collection; choose a new path or an empty folder")
        stated = {"format": FORMAT, "id": uuid.uuid4().hex, "encoder": encoder.to_dict()}
        empty = schema.base_schema(encoder.dim).with_metadata({"crossmodal": json.dumps(stated)})
        made_here = not path.exists()
        try:
            with storage_errors(path):
                path.mkdir(parents=True, exist_ok=True)
                dataset = lance.write_dataset(
                    empty.empty_table(), str(path / TABLE), mode="create", enable_stable_row_ids=True
                )
        except BaseException:
            shutil.rmtree(path if made_here else path / TABLE, ignore_errors=True)
            raise
        return cls(path, dataset)

    @classmethod
    def open(cls, path: Path) -> "Store":
        """Open the newest version.

        :raises CollectionError: when there is none at this path.
        """
        if not is_collection(path):
            seen = "does not exist" if not path.exists() else "holds no collection"
            raise CollectionError(f"{path} {seen}; make one with: crossmodal index SOURCE {path}")
        with storage_errors(path):
            return cls(path, lance.dataset(str(path / TABLE)))

    def newest(self) -> "Store":
        """Give the newest version: this very object when nothing has changed."""
        with storage_errors(self.path):
            if self._dataset.latest_version == self.version:
                return self
        return Store.open(self.path)

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

    def _widen(self, name: str, kind: pa.DataType) -> None:
        """Rewrite a column in a wider type; an interruption in between is mended by ``finish_widening``."""
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
                self._dataset.cleanup_old_versions(older_than=KEEP_VERSIONS)

    def _fitted(self, records: Sequence[StoredRecord]) -> pa.Table:
        """Lay out records in the table's own columns and order."""
        return schema.to_table(records, self._dataset.schema)


def is_collection(path: Path) -> bool:
    """Say whether a folder holds a collection with at least one committed version."""
    versions = path / TABLE / "_versions"
    return versions.is_dir() and any(p.suffix == ".manifest" for p in versions.iterdir())
