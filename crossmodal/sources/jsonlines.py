"""JSON Lines: one object per line, bad lines listed."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from crossmodal.sources.rows import Rows
from crossmodal.sources.text import utf8_lines

BLOCK = 8192


@dataclass(slots=True)
class _Column:
    """One column of a growing table.

    Values of one kind keep it, integers among floats become floats, any other mixture becomes text; so do
    numbers among which an integer is too large for a float. What is nested is kept as JSON text.
    """

    chunks: list[pa.Array] = field(default_factory=list)

    def extend(self, values: list[Any]) -> None:
        flat = [_json(value) if isinstance(value, list | dict) else value for value in values]
        try:
            chunk = pa.array(flat)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            chunk = _texts(flat)
        self.chunks.append(chunk.cast(pa.large_string()) if chunk.type == pa.string() else chunk)

    def array(self) -> pa.ChunkedArray:
        kinds = {chunk.type for chunk in self.chunks} - {pa.null()}
        if kinds == {pa.int64(), pa.float64()}:
            kinds = {pa.float64()}
        if len(kinds) <= 1:
            kind = next(iter(kinds), pa.null())
            try:
                return pa.chunked_array([chunk.cast(kind) for chunk in self.chunks], kind)
            except pa.ArrowInvalid:
                pass  # an integer past 2**53 in another block than a float: text, for nothing may be rounded
        return pa.chunked_array([_texts(chunk.to_pylist()) for chunk in self.chunks], pa.large_string())


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _texts(values: list[Any]) -> pa.Array:
    texts = [value if value is None or isinstance(value, str) else _json(value) for value in values]
    return pa.array(texts, pa.large_string())


def read_json_lines(path: Path) -> Rows:
    """Read a file of JSON objects, one per line; a column is any name that some object has.

    :raises SourceError: when it is not UTF-8.
    """
    columns: dict[str, _Column] = {}
    lines: list[int] = []
    bad: list[tuple[str, str]] = []
    block: list[dict[str, Any]] = []

    def flush() -> None:
        done = len(lines) - len(block)
        for name in dict.fromkeys(name for row in block for name in row):
            if name not in columns:
                columns[name] = _Column([pa.nulls(done)])
        for name, column in columns.items():
            column.extend([row.get(name) for row in block])
        block.clear()

    for number, line in enumerate(utf8_lines(path), start=1):
        if not line.strip():
            continue
        row = parse_object(line)
        if isinstance(row, str):
            bad.append((f"{path.name} line {number}", row))
            continue
        lines.append(number)
        block.append(row)
        if len(block) == BLOCK:
            flush()
    flush()
    table = {name: column.array() for name, column in columns.items()}
    return Rows(
        path=path,
        names=tuple(table),
        table=pa.table(table).combine_chunks(),
        lines=np.array(lines, np.int64),
        bad=tuple(bad),
    )


def parse_object(line: str) -> dict[str, Any] | str:
    """Give the object in a line, or the reason why there is none."""
    try:
        row = json.loads(line)
        if "\\u" in line:
            _json(row).encode()  # half a surrogate pair parses but is no text
    except UnicodeEncodeError:
        return "holds half of a \\u surrogate pair"
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    if not isinstance(row, dict):
        return f"a JSON {type(row).__name__} where an object was expected"
    return row
