"""Which column of a table is what, and what its cells mean."""

import datetime
import decimal
import difflib
import json
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crossmodal.errors import SourceError, unknown
from crossmodal.sources.base import ColumnNames
from crossmodal.types import MetadataValue

IMAGE_COLUMNS = (
    "image",
    "file_name",
    "filename",
    "filepath",
    "file_path",
    "image_path",
    "image_file",
    "image_name",
    "path",
    "file",
    "img",
)
"""Names under which the picture is looked for, the first that is there wins; capitals do not matter."""

CAPTION_COLUMNS = (
    "caption",
    "captions",
    "title",
    "text",
    "texts",
    "sentences",
    "sentence",
    "comment",
    "raw",
)
"""Names under which captions are looked for, the first that is there wins; ``caption`` and ``captions`` go
together, and where none of these is, ``caption_0``, ``caption_1``, ... do."""

KEY_COLUMNS = ("key", "id")
"""Names under which the key is looked for."""

NUMBERED_CAPTION = re.compile(r"captions?_?(\d+)", re.IGNORECASE)
CAPTION_FIELDS = ("raw", "caption", "text", "sentence")
LARGEST_INTEGER = 2**63


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The columns of one table by what they are for; ``metadata`` are all the others that may be kept.

    ``key_decides``: rows belong to one record if they share the key as well as the picture. So it is for a
    column called ``key`` or named by the person. A column ``id`` may only number the rows: there the picture
    alone decides, and its first row gives the key.
    """

    image: str
    captions: tuple[str, ...]
    key: str | None
    key_decides: bool
    metadata: tuple[str, ...]

    @property
    def texts(self) -> frozenset[str]:
        """The columns whose cells stay exactly as they are written."""
        return frozenset((self.image, *self.captions, *([self.key] if self.key else [])))


def find_columns(
    seen: Sequence[str],
    wanted: ColumnNames,
    where: str,
    pictures: Collection[str] = (),
    opaque: Collection[str] = (),
) -> Columns:
    """Say which columns are what: those the person named, else those with a usual name.

    :param where: the table, for messages.
    :param pictures: columns known to hold pictures, whatever they are called.
    :param opaque: columns of raw bytes, never kept as metadata.
    :raises SourceError: when the picture's column or a named one is missing; it lists the columns seen.
    """
    image = (
        _named(wanted.image, seen, where) or _usual(pictures, IMAGE_COLUMNS) or _usual(seen, IMAGE_COLUMNS)
    )
    if image is None and len(pictures) == 1:
        image = next(iter(pictures))
    if image is None:
        raise SourceError(f"{where} has no column of pictures. {_advice(seen, IMAGE_COLUMNS, 'image')}")
    rest = [name for name in seen if name != image]
    captions = _caption_columns(rest, wanted.caption, seen, where)
    key = _named(wanted.key, seen, where) or _usual(rest, KEY_COLUMNS)
    used = {image, key, *captions, *pictures, *opaque}
    return Columns(
        image=image,
        captions=captions,
        key=key,
        key_decides=key is not None and (wanted.key is not None or key.lower() == "key"),
        metadata=tuple(name for name in seen if name not in used),
    )


def _caption_columns(
    rest: Sequence[str], wanted: str | None, seen: Sequence[str], where: str
) -> tuple[str, ...]:
    if wanted is not None:
        names = [wanted] if wanted in seen else [name.strip() for name in wanted.split(",")]
        return tuple(name for name in (_named(name, seen, where) for name in names) if name)
    if usual := _usual(rest, CAPTION_COLUMNS):
        both = {_usual(rest, [name]) for name in CAPTION_COLUMNS[:2]}
        return tuple(name for name in rest if name in both) if usual in both else (usual,)
    numbered = {name: match for name in rest if (match := NUMBERED_CAPTION.fullmatch(name))}
    if numbered:
        return tuple(sorted(numbered, key=lambda name: int(numbered[name][1])))
    for name in rest:
        # A misspelt column would otherwise turn all captions into metadata without a word.
        if difflib.get_close_matches(name.lower(), ("caption", "captions"), n=1, cutoff=0.8):
            raise SourceError(
                f"{where} has no column of captions. {_advice(seen, CAPTION_COLUMNS, 'caption')}"
            )
    return ()


def _named(name: str | None, seen: Sequence[str], where: str) -> str | None:
    if name is not None and name not in seen:
        raise SourceError(f"{where}: {unknown('column', name, seen)}")
    return name


def _usual(seen: Collection[str], names: Iterable[str]) -> str | None:
    by_lower: dict[str, str] = {}
    for name in seen:
        by_lower.setdefault(name.lower(), name)
    return next((by_lower[name] for name in names if name in by_lower), None)


def _advice(seen: Sequence[str], usual: Sequence[str], what: str) -> str:
    near = [n for n in seen if difflib.get_close_matches(n.lower(), usual, n=1, cutoff=0.6)]
    guess = f" (is it {near[0]!r}?)" if near else ""
    return (
        f"Columns seen: {', '.join(map(repr, seen)) or 'none'}{guess}. "
        f"Name it by the option for the {what} column, or call it {usual[0]!r}"
    )


def captions_from(value: Any) -> tuple[str, ...]:
    """Give the captions that a cell holds: a text, a list of texts, or such a list written as JSON.

    >>> captions_from('["a dog", "a brown dog"]')
    ('a dog', 'a brown dog')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ()
    if isinstance(value, str):
        texts = _json_texts(value)
        return tuple(text for text in ([value] if texts is None else texts) if text.strip())
    if isinstance(value, Mapping):
        return captions_from(next((value[name] for name in CAPTION_FIELDS if name in value), None))
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return tuple(caption for item in value for caption in captions_from(item))
    return (str(value),)


def _json_texts(text: str) -> list[str] | None:
    """Read a list of captions written as JSON; None where a text only looks like one."""
    if not text.lstrip().startswith(("[", "{")):
        return None
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return None
    items = parsed if isinstance(parsed, list) else [parsed]
    if any(isinstance(item, Mapping) and not any(name in item for name in CAPTION_FIELDS) for item in items):
        return None
    if not all(item is None or isinstance(item, str | dict) for item in items):
        return None
    return [text for item in items for text in ([item] if isinstance(item, str) else captions_from(item))]


def metadata_value(value: Any) -> MetadataValue:
    """Give a cell as one plain value; nested ones become JSON text, and what is not a number None.

    >>> metadata_value({"a": [1, 2]}), metadata_value(float("nan"))
    ('{"a": [1, 2]}', None)
    """
    if isinstance(value, decimal.Decimal):
        value = float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if (
        isinstance(value, int)
        and not isinstance(value, bool)
        and not -LARGEST_INTEGER <= value < LARGEST_INTEGER
    ):
        return str(value)
    if value is None or isinstance(value, str | int | bool | datetime.date):
        return value
    if isinstance(value, list | tuple | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def metadata_from(rows: Sequence[Mapping[str, Any]], names: Iterable[str]) -> dict[str, MetadataValue]:
    """Give the metadata of one record: of each column the first value that one of its rows has."""
    found: dict[str, MetadataValue] = {}
    for name in names:
        values = (metadata_value(row.get(name)) for row in rows)
        found[name] = next((value for value in values if value is not None), None)
    return found
