"""From the rows of a table to records: which rows belong together, and what they say."""

import posixpath
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crossmodal.sources.columns import Columns, captions_from, metadata_from
from crossmodal.sources.rows import Groups, Integers, Rows, codes_of
from crossmodal.types import MetadataValue

GROUPS_AT_ONCE = 64
NO_NAME = "no picture is named"


def record_parts(
    rows: Sequence[dict[str, Any]], columns: Columns
) -> tuple[tuple[str, ...], dict[str, MetadataValue]]:
    """Give the captions, in their order, and the metadata of the rows of one picture."""
    captions = tuple(caption for row in rows for caption in _captions_in(row, columns.captions))
    return captions, metadata_from(rows, columns.metadata)


def _captions_in(row: dict[str, Any], names: Sequence[str]) -> list[str]:
    """Give the captions of one row; what a column says again after another counts once."""
    captions: list[str] = []
    for name in names:
        said = set(captions)
        captions += [caption for caption in captions_from(row.get(name)) if caption not in said]
    return captions


def key_in(row: dict[str, Any], columns: Columns) -> str | None:
    """Give a row's own key, where it has one."""
    value = row.get(columns.key) if columns.key else None
    return None if value is None or value == "" else str(value)


def identity_of(rows: Rows, columns: Columns, pictures: Integers) -> Integers:
    """Number the rows by the record they belong to, given the number of each row's picture (-1 for none)."""
    if not (columns.key and columns.key_decides):
        return pictures
    keys, values = codes_of(rows.table.column(columns.key))
    return pictures * (len(values) + 1) + keys + 1


def named_pictures(
    rows: Rows, column: str, root: Path, *, inside: bool = False
) -> tuple[list[str], Integers, dict[int, str]]:
    """Give the distinct pictures that a column names, the number of each row's one, and the rows without one.

    :param inside: take no path that leaves ``root``.
    :returns: names; per row an index into them or -1; the reason of each -1 by row.
    """
    codes, values = codes_of(rows.table.column(column))
    names: dict[str, int] = {}
    numbers = np.full(
        len(values) + 1, -1, np.int64
    )  # the last one is for rows without a value: their code is -1
    reasons: dict[int, str] = {}
    for code, value in enumerate(values):
        name, reason = path_name(value, root)
        if inside and (name.startswith("/") or name.split("/")[0] == ".."):
            reason = f"{name} lies outside the folder {root}"
        if reason:
            reasons[code] = reason
        else:
            numbers[code] = names.setdefault(name, len(names))
    numbered = numbers[codes]
    nameless = np.flatnonzero(numbered < 0).tolist()
    return list(names), numbered, {row: reasons.get(int(codes[row]), NO_NAME) for row in nameless}


def grouped_rows(rows: Rows, groups: Groups) -> Iterator[tuple[Integers, list[dict[str, Any]]]]:
    """Yield the row numbers of each group, and those rows as values."""
    for start in range(0, len(groups), GROUPS_AT_ONCE):
        some = groups.some(start, min(start + GROUPS_AT_ONCE, len(groups)))
        values = iter(rows.take(np.concatenate(some)))
        for group in some:
            yield group, [next(values) for _ in group]


def distinct_keys(rows: Rows, columns: Columns, groups: Groups) -> int:
    """Count the records that groups of rows become: the first with a key has it."""
    if not columns.key:
        return len(groups)
    keys = [key_in({columns.key: key}, columns) for key in rows.table.column(columns.key).to_pylist()]
    own = [key for row in groups.first_rows.tolist() if (key := keys[row]) is not None]
    return len(groups) - len(own) + len(set(own))


def path_name(value: Any, root: Path) -> tuple[str, str]:
    """Give a path in a cell relative to ``root`` where it lies inside, or the reason why it is no path."""
    text = str(value)
    if not text.strip():
        return "", NO_NAME
    if "://" in text:
        return "", f"{text!r} is an address; download the pictures and name their files"
    if "\0" in text:
        return "", "its path holds a NUL byte"
    name = posixpath.normpath(text)
    if Path(name).is_relative_to(root):
        name = Path(name).relative_to(root).as_posix()
    return name, ""
