"""Hugging Face datasets: ``hf:NAME_OR_DIR[:SPLIT][?config=NAME]``, from the hub or from a local folder.

Pictures are taken as they are stored, undecoded. A local folder is one written by ``save_to_disk`` or one of
data files that ``load_dataset`` understands. Without a split all of them come.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from crossmodal.errors import SourceError, unknown
from crossmodal.sources.base import (
    ColumnNames,
    Skip,
    Source,
    absolute,
    exists,
    first_line,
    no_such_path,
    read_bytes,
    unique_keys,
)
from crossmodal.sources.columns import find_columns
from crossmodal.sources.parquet import Picture, holds_bytes, picture_in, plain
from crossmodal.sources.rows import Rows
from crossmodal.sources.specs import split_options, with_options
from crossmodal.sources.table import BytesTable, PathTable
from crossmodal.types import Record


@dataclass(frozen=True, slots=True)
class Address:
    """Which dataset: a name on the hub or the absolute path of a folder; a split, a configuration."""

    name: str
    split: str | None
    config: str | None

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read what follows ``hf:``."""
        rest, options = split_options(text, ("config",), f"hf:{text}")
        config = options.get("config")
        if _is_folder(rest):
            return cls(str(absolute(rest)), None, config)
        name, colon, split = rest.rpartition(":")
        if not colon:
            name, split = rest, ""
        if _is_folder(name):
            return cls(str(absolute(name)), split or None, config)
        if name.startswith((".", "/", "~")):
            raise no_such_path(absolute(name), "folder of a dataset")
        if not name:
            raise SourceError(
                "hf: lacks a name. Write hf:NAME or hf:FOLDER, and :SPLIT behind it for one split"
            )
        return cls(name, split or None, config)

    @property
    def folder(self) -> Path | None:
        """The local folder, if it is one."""
        return Path(self.name) if _is_folder(self.name) else None

    @property
    def changed(self) -> int:
        """When its folder changed; a cache that goes by it has a newer one read again."""
        return self.folder.stat().st_mtime_ns if self.folder else 0

    def __str__(self) -> str:
        split = f":{self.split}" if self.split else ""
        return with_options(f"hf:{self.name}{split}", config=self.config)


def _is_folder(name: str) -> bool:
    return bool(name) and exists(absolute(name)) and absolute(name).is_dir()


class HubSource(Source):
    """The rows of a dataset, one split after another."""

    def __init__(self, text: str, wanted: ColumnNames) -> None:
        """Load a dataset.

        :param text: what follows ``hf:`` in the spec.
        :raises SourceError: when it cannot be had, or lacks the split or a column.
        """
        address = Address.parse(text)
        super().__init__(str(address))
        splits = _splits(address)
        self._parts = [
            _part(replace(address, split=split), dataset, wanted, named=len(splits) > 1)
            for split, dataset in splits.items()
        ]

    @property
    def count(self) -> int | None:
        """How many records there are, or None as long as it takes reading pictures to know."""
        counts = [part.count for part in self._parts]
        return None if None in counts else sum(count or 0 for count in counts)

    def _records(self, skip: Skip) -> Iterator[Record]:
        return unique_keys((record for part in self._parts for record in part._records(skip)), skip)


def read_row(text: str, fragment: str) -> bytes:
    """Give the picture in a row of a dataset.

    :param text: the dataset, as it follows ``hf:``; its split is named.
    :param fragment: the row's number, and a colon and the column where it is not the usual one.
    """
    address = Address.parse(text)
    number, _, column = fragment.partition(":")
    pictures = _opened(address, column or None, address.changed) if address.split else None
    if pictures is None or not number.isdecimal() or int(number) >= len(pictures):
        raise SourceError(f"hf:{text}#{fragment} is no row of a dataset. Expected hf:NAME:SPLIT#ROW")
    content, path = next(pictures.read([int(number)]))
    if content:
        return content
    if not path:
        raise SourceError(f"{address} row {number} holds no picture")
    return read_bytes((address.folder or Path()) / path)


class DatasetPictures:
    """The pictures in one column of a dataset, undecoded."""

    def __init__(self, dataset: Any, column: str) -> None:
        self._dataset = dataset.select_columns([column]).with_format("arrow")

    def __len__(self) -> int:
        return len(self._dataset)

    def read(self, rows: Sequence[int]) -> Iterator[Picture]:
        """Yield the pictures of some rows; the files are memory-mapped, so each row costs only itself."""
        for row in rows:
            yield picture_in(self._dataset[row : row + 1].column(0)[0].as_py())

    def paths(self) -> list[str | None]:
        """Give the file name that each picture came with."""
        paths: list[str | None] = []
        for block in self._dataset.iter(1000):
            column = block.column(0).combine_chunks()
            if not pa.types.is_struct(column.type) or column.type.get_field_index("path") < 0:
                return [None] * len(self._dataset)
            paths += column.field("path").to_pylist()
        return paths


def _part(address: Address, dataset: Any, wanted: ColumnNames, *, named: bool) -> Source:
    """Make a source of one split; where there are several, keys and metadata name it."""
    rows = _rows(dataset, address)
    if named and "split" not in rows.names:
        split = pa.array([address.split] * len(rows), pa.string())
        rows = replace(rows, table=rows.table.append_column("split", split), names=(*rows.names, "split"))
    where = str(address)
    columns = find_columns(rows.names, wanted, where, rows.pictures, rows.opaque)
    root = address.folder or Path.cwd()
    if columns.image not in rows.opaque:
        return PathTable(where, rows, columns, root)
    usual = find_columns(rows.names, ColumnNames(), where, rows.pictures, rows.opaque).image
    suffix = "" if columns.image == usual else f":{columns.image}"
    return BytesTable(
        where,
        rows,
        columns,
        DatasetPictures(dataset, columns.image),
        uri=lambda row: f"{where}#{row}{suffix}",
        root=root,
        prefix=f"{address.split}/" if named else "",
    )


def _rows(dataset: Any, address: Address) -> Rows:
    """Give all columns of a dataset but those of bytes; numbers of classes become their names."""
    import datasets

    features = dataset.features
    pictures, opaque = _columns_of_bytes(features)
    small = [name for name in features if name not in opaque]
    table = dataset.select_columns(small).with_format("arrow")[:] if small else pa.table({})
    table = plain(table, len(dataset))
    for number, name in enumerate(table.column_names):
        if isinstance(features.get(name), datasets.ClassLabel):
            names = [
                None if i is None or i < 0 else features[name].int2str(i) for i in table[name].to_pylist()
            ]
            table = table.set_column(number, name, pa.array(names, pa.string()))
    return Rows(path=Path(str(address)), names=tuple(features), table=table, pictures=pictures, opaque=opaque)


def _columns_of_bytes(features: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Name the columns of pictures, and all columns of bytes, which those are among."""
    import datasets

    schema = features.arrow_schema
    opaque = tuple(field.name for field in schema if holds_bytes(field.type))
    images = tuple(name for name in opaque if isinstance(features[name], datasets.Image))
    others = tuple(name for name in opaque if pa.types.is_binary(schema.field(name).type))
    return images or others, opaque


@lru_cache(maxsize=16)
def _opened(address: Address, column: str | None, changed: int) -> DatasetPictures:
    """Open the pictures of one split; no other column is read."""
    (dataset,) = _splits(address).values()
    pictures, opaque = _columns_of_bytes(dataset.features)
    wanted = ColumnNames(image=column)
    return DatasetPictures(
        dataset, find_columns(list(dataset.features), wanted, str(address), pictures, opaque).image
    )


def _splits(address: Address) -> dict[str, Any]:
    """Load the splits asked for, by name."""
    splits = _load(address.name, address.config, address.changed)
    if address.split is None:
        return splits
    if address.split not in splits:
        raise SourceError(f"{replace(address, split=None)}: {unknown('split', address.split, splits)}")
    return {address.split: splits[address.split]}


@lru_cache(maxsize=4)
def _load(name: str, config: str | None, changed: int) -> dict[str, Any]:
    """Load a dataset, all its splits.

    :param changed: when its folder changed, so that a newer one is loaded again.
    """
    import datasets

    folder = Path(name) if _is_folder(name) else None
    try:
        if folder and any((folder / file).is_file() for file in ("dataset_dict.json", "state.json")):
            loaded = datasets.load_from_disk(name)
        else:
            loaded = datasets.load_dataset(name, config)
    except ConnectionError as error:
        raise SourceError(
            f"hf:{name} needs the network, and the hub cannot be reached ({first_line(error)}). Without a "
            "network give a local copy: hf:FOLDER, or a folder of pictures, a table or tar shards"
        ) from error
    except datasets.exceptions.DatasetNotFoundError as error:
        raise SourceError(f"hf:{name} cannot be found: {first_line(error)}") from error
    except (datasets.exceptions.DatasetsError, OSError, ValueError, RuntimeError, pa.ArrowException) as error:
        advice = f". A folder of pictures can be read as it is, by its path: {name}" if folder else ""
        raise SourceError(f"hf:{name} cannot be loaded: {first_line(error)}{advice}") from error
    if isinstance(loaded, dict):
        return dict(loaded)
    return {str(loaded.split or "train"): loaded}
