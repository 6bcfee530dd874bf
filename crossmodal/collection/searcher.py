"""Keeps a search index in step with the table; its files are caches that can be lost without loss."""

import logging
import threading
from pathlib import Path

import numpy as np

from crossmodal.collection.snapshot import Snapshot
from crossmodal.collection.store import INDEX
from crossmodal.errors import CrossmodalError, IndexingError
from crossmodal.index import FaissIndex
from crossmodal.types import MODALITIES, Modality

logger = logging.getLogger("crossmodal")

STALE_ROWS = 1000
"""An index file that misses no more rows than this is caught up at each start, not written again."""


class Searcher:
    """One FAISS index per modality, brought forward to the newest version that was searched; never back.

    Several threads may share it: whoever searches asks for ``version`` afterwards, and starts again when
    another thread has brought the index further than the rows at hand.
    """

    def __init__(self, path: Path) -> None:
        self._folder = path / INDEX
        self._lock = threading.RLock()
        self._indexes: dict[Modality, FaissIndex] = {}
        self._versions: dict[Modality, int] = {}
        self._saved_versions: dict[Modality, int] = {}

    def index(self, store: Snapshot, modality: Modality) -> FaissIndex:
        """Give the index of one modality, holding the rows of ``store`` or of a newer version."""
        with self._lock:
            if modality not in self._indexes:
                self._load(store, modality)
            if self._versions[modality] < store.version:
                self._catch_up(store, modality)
            return self._indexes[modality]

    def version(self, modality: Modality) -> int:
        """Say which version's rows the index of one modality holds."""
        with self._lock:
            return self._versions[modality]

    def save(self, store: Snapshot) -> None:
        """Write index files that are missing or miss many rows, so that the next start is quick."""
        with self._lock:
            for modality in MODALITIES:
                index = self.index(store, modality)
                saved = self._saved_versions.get(modality, 0)
                if saved == store.version:
                    continue
                stale = store.count_changed(modality, after=saved) if saved else len(index)
                if self._versions[modality] == store.version and not (saved and stale <= STALE_ROWS):
                    self._save(index, store, modality)

    def forget(self) -> None:
        """Drop the indexes and their files; the next search builds them anew from the table."""
        with self._lock:
            for modality in MODALITIES:
                self._indexes.pop(modality, None)
                self._saved_versions.pop(modality, None)
                for file in self._folder.glob(f"*{modality}.index*"):
                    file.unlink()

    def _save(self, index: FaissIndex, store: Snapshot, modality: Modality) -> None:
        stamp = {"collection": store.identity.id, "version": str(store.version)}
        try:
            self._folder.mkdir(exist_ok=True)
            index.save(self._file(modality), stamp)
        except (OSError, CrossmodalError) as error:
            logger.warning("the search index is not kept on disk and is built again at each start: %s", error)
        else:
            self._saved_versions[modality] = store.version
            self._map(modality)

    def _map(self, modality: Modality) -> None:
        """Leave the part of a binary index that is read by row to the file that was just written."""
        if self._indexes[modality].storage == "binary":
            try:
                self._indexes[modality], _ = FaissIndex.load(self._file(modality))
            except CrossmodalError as error:
                logger.warning("the search index stays in memory: %s", error)

    def _load(self, store: Snapshot, modality: Modality) -> None:
        """Take the index from its file where that is sound and ours, else start from an empty one."""
        kept_as = store.identity.encoder.dim, store.identity.storage
        index, version = FaissIndex(kept_as[0], storage=kept_as[1]), 0
        file = self._file(modality)
        if file.exists():
            try:
                loaded, stamp = FaissIndex.load(file)
                ours = stamp.get("collection") == store.identity.id and int(stamp["version"]) <= store.version
                if ours and (loaded.dim, loaded.storage) == kept_as:
                    index, version = loaded, int(stamp["version"])
            except (CrossmodalError, OSError, KeyError, ValueError) as error:
                logger.warning("the search index is built again: %s", error)
        self._indexes[modality] = index
        self._versions[modality] = self._saved_versions[modality] = version

    def _catch_up(self, store: Snapshot, modality: Modality) -> None:
        """Add rows changed since the index's version and remove those that are gone."""
        index = self._indexes[modality]
        try:
            for ids, vectors in store.embeddings(modality, after=self._versions[modality]):
                index.add(ids, vectors)
        except IndexingError as error:
            raise IndexingError(f"{store.path} is damaged: {error} {_mend(store)}") from error
        present = store.row_ids(modality)
        gone = np.setdiff1d(index.ids(), present, assume_unique=True)
        if len(gone):
            index.remove(gone)
        if len(index) != len(present):
            raise IndexingError(
                f"The {modality} index has {len(index)} rows, the table {len(present)}; {_mend(store)}"
            )
        self._versions[modality] = store.version

    def _file(self, modality: Modality) -> Path:
        return self._folder / f"{modality}.index"


def _mend(store: Snapshot) -> str:
    return f"Mend it with: crossmodal verify {store.path} --repair"
