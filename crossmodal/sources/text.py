"""UTF-8 text, line by line, with the place of the first byte that is not."""

from collections.abc import Iterator
from pathlib import Path

from crossmodal.errors import SourceError
from crossmodal.sources.base import refused

BOMS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
UTF8_BOM = b"\xef\xbb\xbf"


def utf8_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 file with their line ends; a byte order mark is dropped.

    :raises SourceError: at a byte that is not UTF-8, with its position, or when the file cannot be read.
    """
    position = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                offset = len(UTF8_BOM) if number == 1 and line.startswith(UTF8_BOM) else 0
                try:
                    yield line[offset:].decode()
                except UnicodeDecodeError as error:
                    raise SourceError(
                        f"{path} is not UTF-8 text: {not_utf8(line, error, offset, position)}, "
                        f"in line {number}. Save it as UTF-8"
                    ) from None
                position += len(line)
    except OSError as error:
        raise refused(path, error) from error


def decode_utf8(data: bytes) -> str:
    """Decode bytes, with or without a byte order mark.

    :raises ValueError: saying which byte is not UTF-8, and where.
    """
    offset = len(UTF8_BOM) if data.startswith(UTF8_BOM) else 0
    try:
        return data[offset:].decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text: {not_utf8(data, error, offset, 0)}") from None


def not_utf8(data: bytes, error: UnicodeDecodeError, offset: int, position: int) -> str:
    """Say which byte is wrong; ``data`` was decoded from ``offset`` on and begins at byte ``position``."""
    at = offset + error.start
    guess = BOMS.get(data[:2]) if position == 0 else None
    return f"byte 0x{data[at]:02x} at position {position + at}" + (
        f" (it looks like {guess})" if guess else ""
    )
