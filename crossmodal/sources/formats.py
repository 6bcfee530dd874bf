"""Tables by the suffix of their file."""

from pathlib import Path

from crossmodal.errors import SourceError, unknown
from crossmodal.sources.base import no_such_path, refused
from crossmodal.sources.delimited import read_delimited
from crossmodal.sources.jsonlines import read_json_lines
from crossmodal.sources.parquet import read_parquet
from crossmodal.sources.rows import Rows

READERS = {
    ".csv": read_delimited,
    ".tsv": read_delimited,
    ".jsonl": read_json_lines,
    ".parquet": read_parquet,
}


def read_rows(path: Path) -> Rows:
    """Read a table.

    :raises SourceError: when it cannot be read, is empty, or no row of it parses.
    """
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise SourceError(f"{path}: {unknown('kind of table', suffix, READERS)}")
    try:
        if not path.is_file():
            raise no_such_path(path, "table")
        size = path.stat().st_size
    except OSError as error:
        raise refused(path, error) from error
    if size == 0:
        raise SourceError(f"{path} is empty (0 bytes). A table begins with the names of its columns")
    rows = READERS[suffix](path)
    if len(rows):
        return rows
    if rows.bad:
        place, reason = rows.bad[0]
        raise SourceError(f"{path}: none of its {len(rows.bad)} rows can be read. {place}: {reason}")
    columns = ", ".join(map(repr, rows.names)) or "none"
    raise SourceError(f"{path} holds no rows (columns seen: {columns})")
