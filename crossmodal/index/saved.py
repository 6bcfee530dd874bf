"""An index on disk: one safetensors file of ids, vectors, a stamp and a checksum over every byte.

The file is written beside its place and moved there when it is whole. It is mapped, not copied, where the
system lets a mapped file be replaced, and used only after its checksum was found right (100,000 rows of 384:
23 ms), so a torn file is refused and never parsed.
"""

import json
import os
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crossmodal.errors import IndexingError, StorageError
from crossmodal.index.forms import Array, Form, form_of
from crossmodal.index.rows import Rows

Bytes = NDArray[np.uint8]

_FORMAT = "crossmodal-index-1"
_DTYPES = {"float32": "F32", "float16": "F16", "int8": "I8", "uint8": "U8"}
_START = b'{"__metadata__":{"format":"crossmodal-index-'
_LENGTH_BYTES = 8
_CHECKSUM_BYTES = 4
_STRAY_AFTER_SECONDS = 3600

# Windows refuses to replace or remove a file that somebody maps: there it is read.
_MAPPED = os.name != "nt"


def write_rows(path: str | os.PathLike[str], rows: Rows, stamp: Mapping[str, str]) -> None:
    """Write rows and their stamp; ``path`` holds either the old file or the new one, never a part.

    :raises StorageError: when the disk refuses.
    """
    target = Path(path)
    draft = target.with_name(f".{target.name}.{os.getpid()}-{time.monotonic_ns()}.part")
    try:
        _remove_strays(target)
        with draft.open("xb") as file:
            checksum = 0
            for part in _content_of(rows, stamp):
                checksum = zlib.crc32(part, checksum)
                file.write(part)
            file.write(checksum.to_bytes(_CHECKSUM_BYTES, "little"))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    except OSError as error:
        raise StorageError(f"Cannot write the index to {target}: {error.strerror or error}.") from error
    finally:
        draft.unlink(missing_ok=True)


def read_rows(path: str | os.PathLike[str]) -> tuple[Rows, dict[str, str]]:
    """Map or read a file that ``write_rows`` wrote: the rows and the stamp.

    The rows may be changed; that changes memory, never the file.

    :raises IndexingError: when there is no file, or it is not ours, torn or damaged.
    :raises StorageError: when the disk refuses.
    """
    source = Path(path)
    try:
        if source.stat().st_size < _LENGTH_BYTES + len(_START) + _CHECKSUM_BYTES:
            raise _damaged(source, "it is too short")
        content = _content(source)
    except FileNotFoundError as error:
        raise IndexingError(f"There is no index file at {source}; build the index again.") from error
    except OSError as error:
        raise StorageError(f"Cannot read the index {source}: {error.strerror or error}.") from error
    if content[_LENGTH_BYTES : _LENGTH_BYTES + len(_START)].tobytes() != _START:
        raise IndexingError(f"{source} is not an index file of crossmodal; build the index again.")
    body, tail = content[:-_CHECKSUM_BYTES], content[-_CHECKSUM_BYTES:]
    if zlib.crc32(body.data) != int.from_bytes(tail.tobytes(), "little"):
        raise _damaged(source, "its checksum is wrong")
    return _parse(source, body)


def _content(source: Path) -> Bytes:
    """Give the bytes of a file, to be changed in memory alone."""
    if _MAPPED:
        return np.asarray(np.memmap(source, np.uint8, mode="c"))
    return np.fromfile(source, np.uint8)


def _content_of(rows: Rows, stamp: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    """Give what a file holds before its checksum, piece by piece."""
    yield _head(rows.form, len(rows), rows.dim, stamp)
    for piece in rows.pieces():
        if piece.size:  # an empty array has no bytes to view
            yield piece.reshape(-1).view(np.uint8).data


def _parse(source: Path, body: Bytes) -> tuple[Rows, dict[str, str]]:
    """Cut a whole body into its parts; a header that we would not have written ourselves is refused."""
    start = _LENGTH_BYTES + int.from_bytes(body[:_LENGTH_BYTES].tobytes(), "little")
    try:
        header = json.loads(body[_LENGTH_BYTES:start].tobytes())
        stamp = json.loads(header["__metadata__"]["stamp"])
        form = form_of(header["__metadata__"].get("storage", "float32"))
        count, dim = (header.get("codes") or header["vectors"])["shape"]
        expected = _head(form, count, dim, stamp)
    except (KeyError, TypeError, ValueError, IndexingError) as error:
        raise _damaged(source, "its header does not parse") from error
    widths = [part.bytes_per_vector for part in form.parts(dim)]
    if body[:start].tobytes() != expected or len(body) != start + count * (8 + sum(widths)):
        raise _damaged(source, "its header is of another version")
    ids, start = body[start : start + 8 * count].view(np.int64), start + 8 * count
    arrays: list[Array] = []
    for part, width in zip(form.parts(dim), widths, strict=True):
        stop = start + count * width
        arrays.append(body[start:stop].view(part.dtype).reshape(count, part.width))
        start = stop
    return Rows(form, dim, ids, tuple(arrays)), stamp


def _head(form: Form, rows: int, dim: int, stamp: Mapping[str, str]) -> bytes:
    """Give what stands before the tensors: the header's length and the header, padded to eight bytes."""
    facts = {"format": _FORMAT, "stamp": json.dumps(dict(stamp), sort_keys=True)}
    if form.storage != "float32":
        facts["storage"] = form.storage
    header: dict[str, object] = {"__metadata__": facts}
    end = 8 * rows
    header["ids"] = {"dtype": "I64", "shape": [rows], "data_offsets": [0, end]}
    for part in form.parts(dim):
        start, end = end, end + rows * part.bytes_per_vector
        dtype = _DTYPES[part.dtype.name]
        header[part.name] = {"dtype": dtype, "shape": [rows, part.width], "data_offsets": [start, end]}
    offsets = [end, end + _CHECKSUM_BYTES]
    header["crc32"] = {"dtype": "U32", "shape": [1], "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def _remove_strays(target: Path) -> None:
    """Remove drafts that a killed process left behind; a young one may still be in the making."""
    for stray in target.parent.glob(f".{target.name}.*.part"):
        try:
            if time.time() - stray.stat().st_mtime > _STRAY_AFTER_SECONDS:
                stray.unlink()
        except FileNotFoundError:
            continue  # another process was quicker


def _damaged(source: Path, how: str) -> IndexingError:
    """Make the error for a file that was ours once."""
    return IndexingError(f"The index file {source} is torn or damaged ({how}); build the index again.")
