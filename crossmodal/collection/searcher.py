"""Keeps a search index in step with the table; its files are caches that can be lost without loss."""

import logging
import threading
from pathlib import Path

import numpy as np

from crossmodal.collection.store import Store
from crossmodal.errors import CrossmodalError, IndexingError
from crossmodal.index import FaissIndex
from crossmodal.types import MODALITIES, Modality

logger = logging.getLogger("crossmodal")

FOLDER = "index"
STALE_ROWS = 1000
"""An index file that misses no more rows than this is caught up at each start, not written again."""


class Searcher:
    """One FAISS index per modality, brought to the version of the store that is searched."""

    def __init__(self, path: Path) -> None:
        self._folder = path / FOLDER
        self._lock = threading.RLock()
        self._indexes: dict[Modality, FaissIndex] = {}
        self._versions: dict[Modality, int] = {}
        self._saved_versions: dict[Modality, int] = {}

    def index(self, store: Store, modality: Modality) -> FaissIndex:
        """Give the index of one modality, holding exactly the rows of ``store``."""
        with self._lock:
            if modality not in self._indexes:
                self._load(store, modality)
            if self._versions[modality] != store.version:
                self._catch_up(store, modality)
            return self._indexes[modality]

    def save(self, store: Store) -> None:
        """Write index files that are missing or miss many rows, so that the next start is quick."""
        with self._lock:
            for modality in MODALITIES:
                index = self.index(store, modality)
                saved = self._saved_versions.get(modality, 0)
                if saved == store.version:
                    continue
                stale = store.count_changed(modality, after=saved) if saved else len(index)
                if saved and stale <= STALE_ROWS:
                    continue
                self._save(index, store, modality)

    def forget(self) -> None:
        """Drop the indexes and their files; the next search builds them anew from the table."""
        with self._lock:
            for modality in MODALITIES:
                self._indexes.pop(modality, None)
                self._saved_versions.pop(modality, None)
                for file in self._folder.glob(f"*{modality}.index*"):
                    file.unlink()

    def _save(self, index: FaissIndex, store: Store, modality: Modality) -> None:
        stamp = {"collection": store.identity.id, "version": str(store.version)}
        try:
            self._folder.mkdir(exist_ok=True)
            index.save(self._file(modality), stamp)
        except (OSError, CrossmodalError) as error:
            logger.warning("the search index is not kept on disk and is built again at each start: %s", error)
        else:
            self._saved_versions[modality] = store.version

    def _load(self, store: Store, modality: Modality) -> None:
        """Take the index from its file where that is sound and ours, else start from an empty one."""
        index, version = FaissIndex(store.identity.encoder.dim), 0
        file = self._file(modality)
        if file.exists():
            try:
                loaded, stamp = FaissIndex.load(file)
                if stamp.get("collection") == store.identity.id and int(stamp["version"]) <= store.version:
                    index, version = loaded, int(stamp["version"])
            except (CrossmodalError, OSError, KeyError, ValueError) as error:
                logger.warning("the search index is built again: %s", error)
        self._indexes[modality] = index
        self._versions[modality] = self._saved_versions[modality] = version

    def _catch_up(self, store: Store, modality: Modality) -> None:
        """Add rows changed since the index's version and remove those that are gone."""
        index = self._indexes[modality]
        for ids, vectors in store.embeddings(modality, after=self._versions[modality]):
            index.add(ids, vectors)
        present = store.row_ids(modality)
        gone = np.setdiff1d(index.ids(), present, assume_unique=True)
        if len(gone):
            index.remove(gone)
        if len(index) != len(present):
            raise IndexingError(
                f"The {modality} index has {len(index)} rows, the table {len(present)}; "
                f"mend it with: crossmodal verify {store.path} --repair"
            )
        self._versions[modality] = store.version

    def _file(self, modality: Modality) -> Path:
        return self._folder / f"{modality}.index"
