"""Checking a collection row by row, and mending what can be mended.

What is damaged is removed, so that the next ``index`` of its source brings it back; the search index is
rebuilt from the table.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from crossmodal.collection.schema import embedding_matrix
from crossmodal.collection.searcher import Searcher
from crossmodal.collection.snapshot import Snapshot
from crossmodal.collection.store import Store
from crossmodal.errors import CollectionError, CrossmodalError
from crossmodal.index import ExactIndex, FaissIndex
from crossmodal.sources import is_there
from crossmodal.types import MODALITIES, Modality

NORM_TOLERANCE = 1e-3
PROBES = 16


@dataclass(slots=True, kw_only=True)
class VerifyReport:
    """What was found; ``problems`` hold a line each, ``missing`` are pictures whose file is gone."""

    records: int = 0
    rows: int = 0
    problems: list[str] = field(default_factory=list)
    damaged: set[str] = field(default_factory=set)
    """Keys of the records that have a problem."""
    missing: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; a picture moved away is told, but is no damage."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Give the report as plain values for JSON."""
        return {
            "ok": self.ok,
            "records": self.records,
            "rows": self.rows,
            "problems": self.problems,
            "missing": self.missing,
            "repaired": self.repaired,
        }


def verify(snapshot: Snapshot) -> VerifyReport:
    """Check rows, vectors and index files without changing anything."""
    report = VerifyReport()
    try:
        _check_rows(snapshot, report)
        _check_indexes(snapshot, report)
    except CollectionError as error:
        report.problems.append(str(error))
    return report


def repair(store: Store) -> VerifyReport:
    """Remove damaged records, rebuild the indexes, and check again."""
    before = verify(store)
    done: list[str] = []
    if before.damaged:
        store.delete(sorted(before.damaged))
        done.append(
            f"removed {len(before.damaged)} damaged records; index their source again to bring them back"
        )
    store = store.newest()
    searcher = Searcher(store.path)
    searcher.forget()
    searcher.save(store)
    done.append("rebuilt the search index from the table")
    after = verify(store)
    after.repaired = [*before.problems, *done] if before.problems else done
    return after


def _check_rows(snapshot: Snapshot, report: VerifyReport) -> None:
    """Read every row once: identities, order of captions, vectors, and the files of the pictures."""
    positions: dict[str, list[int]] = defaultdict(list)
    images: dict[str, int] = defaultdict(int)
    for table in snapshot.iterate(embeddings=True):
        for row in table.select(["key", "modality", "_position", "uri"]).to_pylist():
            if row["modality"] == "text":
                positions[row["key"]].append(row["_position"])
                continue
            images[row["key"]] += 1
            if is_there(row["uri"]) is False:
                report.missing.append(row["key"])
        keys = table["key"].to_pylist()
        with np.errstate(all="ignore"):  # garbage overflows, and is told below
            norms = np.linalg.norm(embedding_matrix(table), axis=1)
        for row in np.flatnonzero(~(np.abs(norms - 1) <= NORM_TOLERANCE)):
            _damage(report, keys[row], f"has a vector of length {norms[row]:.4g}, not 1")
        report.rows += len(table)
    for key in positions.keys() | images.keys():
        if images[key] != 1:
            _damage(report, key, f"has {images[key]} picture rows, not one")
        if sorted(positions[key]) != list(range(len(positions[key]))):
            _damage(report, key, f"has captions at places {sorted(positions[key])}")
    report.records = len(images)


def _damage(report: VerifyReport, key: str, problem: str) -> None:
    report.damaged.add(key)
    report.problems.append(f"record {key!r} {problem}")


def _check_indexes(snapshot: Snapshot, report: VerifyReport) -> None:
    """Compare the index files, caught up, with the table: the same rows and answers as brute force."""
    if report.damaged:
        return
    searcher = Searcher(snapshot.path)
    for modality in MODALITIES:
        try:
            index = searcher.index(snapshot, modality)
        except CrossmodalError as error:
            report.problems.append(str(error))
            continue
        exact = ExactIndex(snapshot.identity.encoder.dim)
        if parts := list(snapshot.embeddings(modality)):
            exact.add(np.concatenate([ids for ids, _ in parts]), np.concatenate([rows for _, rows in parts]))
        if not np.array_equal(np.sort(index.ids()), np.sort(exact.ids())):
            report.problems.append(f"the {modality} index does not hold the rows of the table")
        elif len(exact) and not _same_answers(index, exact, snapshot, modality):
            report.problems.append(f"the {modality} index does not answer as brute force does")


def _same_answers(index: FaissIndex, exact: ExactIndex, snapshot: Snapshot, modality: Modality) -> bool:
    """Ask both with some of the stored vectors; bits may miss a row, but score as brute force does."""
    _, vectors = next(snapshot.embeddings(modality))
    queries = vectors[np.linspace(0, len(vectors) - 1, min(PROBES, len(vectors)), dtype=np.int64)]
    k = min(10, len(exact))
    scores, ids = index.search(queries, k)
    if index.storage == "binary":
        parts = [exact.search(query[None], k, found) for query, found in zip(queries, ids, strict=True)]
        exact_scores, exact_ids = (np.concatenate(part) for part in zip(*parts, strict=True))
    else:
        exact_scores, exact_ids = exact.search(queries, k)
    return bool(np.array_equal(ids, exact_ids) and np.allclose(scores, exact_scores, atol=1e-5))
