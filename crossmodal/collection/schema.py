"""The shape of a collection's one table: a row per picture and a row per caption.

============ ======================= ==========================================================
column       type                    meaning
============ ======================= ==========================================================
key          string                  the record's key; with modality and _position it names a row
modality     string                  "image" or "text"
uri          string                  where the picture can be fetched again
text         string                  the caption; of a picture, all its captions, a line each
_position    int32                   0 for a picture, the caption's place otherwise
_source      string                  the source the record came from, empty if none
_digest      string                  of a picture, the hash of its content
_stamp       string                  of a picture, the state of its file when it was hashed
embedding    float32[D], float16[D]  L2-normalised; of storage int8 and binary, the codes
             or int8[D]
_scale       float32                 with int8 alone: what the codes are multiplied by
...          string, int64, ...      one column for each name in the records' metadata
============ ======================= ==========================================================
"""

import datetime
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from crossmodal.encoders.base import Embeddings
from crossmodal.index import Storage
from crossmodal.index.forms import form_of
from crossmodal.types import MetadataValue

IDENTITY = ("key", "modality", "_position")
OWN_COLUMNS = (*IDENTITY, "uri", "text", "_source", "_digest", "_stamp", "embedding", "_scale")
VECTOR_COLUMNS = ("embedding", "_scale")
FILTERABLE = ("key", "modality", "uri", "text")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRecord:
    """A record as the collection holds it; ``embedding``s are given where they were asked for."""

    key: str
    uri: str
    captions: tuple[str, ...]
    metadata: Mapping[str, MetadataValue]
    source: str = ""
    digest: str = ""
    stamp: str = ""
    image_embedding: Embeddings | None = None
    text_embeddings: Embeddings | None = None


_NUMBERS = {"float32": pa.float32(), "float16": pa.float16(), "int8": pa.int8(), "binary": pa.int8()}


def base_schema(dim: int, storage: Storage = "float32") -> pa.Schema:
    """Give the columns that every collection has whose vectors are kept so."""
    strings = ("key", "modality", "uri", "text", "_source", "_digest", "_stamp")
    fields = [pa.field(name, pa.string(), nullable=False) for name in strings]
    fields.append(pa.field("_position", pa.int32(), nullable=False))
    numbers = _NUMBERS[storage]
    fields.append(pa.field("embedding", pa.list_(numbers, dim), nullable=False))
    if numbers == pa.int8():
        fields.append(pa.field("_scale", pa.float32(), nullable=False))
    return pa.schema(fields)


def bytes_per_vector(dim: int, storage: Storage) -> int:
    """Give the bytes that the table holds of each vector; bits are not among them."""
    kept = form_of("int8" if storage == "binary" else storage)
    return sum(part.bytes_per_vector for part in kept.parts(dim))


def is_metadata(column: str) -> bool:
    """Say whether a column holds metadata; what begins with an underscore is the table's own."""
    return column not in OWN_COLUMNS and not column.startswith("_")


def column_name(name: str) -> str:
    """Give the column that holds metadata ``name``: itself, unless the table or its filters forbid that."""
    safe = re.sub(r"[^\w \-]", "_", name.strip()) or "unnamed"
    if safe.lower() in OWN_COLUMNS or safe.startswith("_"):
        safe = f"metadata_{safe.lstrip('_')}"
    return safe


def arrow_type(values: Iterable[MetadataValue]) -> pa.DataType | None:
    """Give the narrowest column type that holds all values; None when all are None."""
    types = [_type_of(value) for value in values if value is not None]
    if not types:
        return None
    result = types[0]
    for other in types[1:]:
        result = wider(result, other)
    return result


def _type_of(value: MetadataValue) -> pa.DataType:
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, int):
        # Beyond 2**53 a number would lose digits where it meets fractions, in floats and in JSON readers.
        return pa.int64() if abs(value) <= 2**53 else pa.string()
    if isinstance(value, float):
        return pa.float64()
    if isinstance(value, datetime.datetime):
        return pa.timestamp("us", tz="UTC" if value.tzinfo else None)
    if isinstance(value, datetime.date):
        return pa.date32()
    return pa.string()


def wider(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    """Give the type that holds values of both: int64 and float64 meet in float64, all else in string."""
    if a == b:
        return a
    if {a, b} == {pa.int64(), pa.float64()}:
        return pa.float64()
    return pa.string()


def to_column(values: Sequence[MetadataValue], kind: pa.DataType) -> pa.Array:
    """Convert metadata values to one column of the type it has in the table."""
    if pa.types.is_string(kind):
        return pa.array([None if v is None else _as_string(v) for v in values], kind)
    return pa.array(values, kind)


def _as_string(value: MetadataValue) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime.datetime | datetime.date):
        return value.isoformat()
    return str(value).encode("utf-8", "replace").decode()


def stored_alike(value: MetadataValue, stored: MetadataValue) -> bool:
    """Say whether a value equals what a column, perhaps of a wider type, holds of it."""
    return value == stored or (isinstance(stored, str) and _as_string(value) == stored)


def to_table(records: Sequence[StoredRecord], schema: pa.Schema) -> pa.Table:
    """Lay out records as rows: the picture's first, then its captions'."""
    rows: list[dict[str, Any]] = []
    vectors: list[Embeddings] = []
    for record in records:
        assert record.image_embedding is not None
        assert record.text_embeddings is not None
        shared = {"key": record.key, "uri": record.uri, "_source": record.source, **record.metadata}
        picture = {"modality": "image", "_position": 0, "_digest": record.digest, "_stamp": record.stamp}
        rows.append(shared | picture | {"text": "\n".join(record.captions)})
        vectors.append(record.image_embedding)
        for position, caption in enumerate(record.captions):
            words = {"modality": "text", "_position": position, "_digest": "", "_stamp": ""}
            rows.append(shared | words | {"text": caption})
            vectors.append(record.text_embeddings[position])
    encoded = _encoded(np.stack(vectors).astype(np.float32, copy=False), schema)
    arrays = []
    for field in schema:
        if field.name in encoded:
            arrays.append(encoded[field.name])
        elif field.name in OWN_COLUMNS:
            arrays.append(pa.array([row[field.name] for row in rows], field.type))
        else:
            arrays.append(to_column([row.get(field.name) for row in rows], field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def to_records(table: pa.Table) -> dict[str, StoredRecord]:
    """Read rows back as records by key; rows of a record may come in any order."""
    metadata_columns = [n for n in table.schema.names if is_metadata(n)]
    columns = {n: table[n].to_pylist() for n in table.schema.names if n not in VECTOR_COLUMNS}
    vectors = embedding_matrix(table) if "embedding" in table.schema.names else None
    order = sorted(range(len(table)), key=lambda i: (columns["modality"][i], columns["_position"][i]))
    rows: dict[str, list[int]] = {}
    for i in order:
        rows.setdefault(columns["key"][i], []).append(i)
    records = {}
    for key, at in rows.items():
        image, texts = at[0], at[1:]
        if columns["modality"][image] != "image":
            continue
        records[key] = StoredRecord(
            key=key,
            uri=columns["uri"][image],
            captions=tuple(columns["text"][i] for i in texts),
            metadata={n: columns[n][image] for n in metadata_columns if columns[n][image] is not None},
            source=columns["_source"][image],
            digest=columns["_digest"][image],
            stamp=columns["_stamp"][image],
            image_embedding=None if vectors is None else vectors[image],
            text_embeddings=None if vectors is None else vectors[texts],
        )
    return records


def embedding_matrix(table: pa.Table) -> Embeddings:
    """Read the vectors as float32 (N, D), whatever they are kept as; float32 in one chunk without a copy."""
    column = table["embedding"].combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    values = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), column.type.list_size)
    if pa.types.is_int8(column.type.value_type):
        return form_of("int8").decode(
            [table["_scale"].to_numpy()[:, None], values], np.empty(values.shape, np.float32)
        )
    vectors: Embeddings = values.astype(np.float32, copy=False)
    return vectors


def _encoded(vectors: Embeddings, schema: pa.Schema) -> dict[str, pa.Array]:
    """Give the columns that hold these vectors, in the form the table has."""
    kind = schema.field("embedding").type
    if pa.types.is_int8(kind.value_type):
        scales, codes = form_of("int8").encode(vectors)
        columns = {"_scale": pa.array(scales.ravel())}
    else:
        codes, columns = vectors.astype(kind.value_type.to_pandas_dtype(), copy=False), {}
    return columns | {"embedding": pa.FixedSizeListArray.from_arrays(pa.array(codes.ravel()), kind.list_size)}
