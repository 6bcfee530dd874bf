from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crossmodal.errors import SourceError
from crossmodal.sources import open_source, read_uri, sample

Picture = Callable[..., bytes]


@pytest.fixture
def rows(tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Forty rows in the schema of the bundled sample, standing in its place."""
    rows = [
        {
            "key": f"animals/{i:02}",
            "split": "test" if i % 7 == 0 else "validation" if i % 7 == 1 else "train",
            "image": picture(i, "webp"),
            "title": f'Title "{i}", drawn',
            "description": f"What {i} shows" if i % 2 else None,
            "keywords": ["red", f"k{i}"] if i % 3 else [],
            "author": "Ann",
            "category": "animals",
        }
        for i in range(40)
    ]
    path = tmp_path / "openclipart.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=6)
    monkeypatch.setattr(sample, "sample_path", lambda: path)
    return rows


@pytest.mark.parametrize("split", [None, "train", "validation", "test"])
def test_the_rows_of_a_split_become_records(rows: list[dict[str, Any]], split: str | None) -> None:
    spec = f"sample:{split}" if split else "sample"
    source = open_source(spec)
    expected = [row for row in rows if split in (None, row["split"])]
    for _ in range(2):
        records = list(source)
        assert [record.key for record in records] == [row["key"] for row in expected]
        for record, row in zip(records, expected, strict=True):
            assert record.image == row["image"]
            assert record.captions == (row["title"],)
            assert record.uri == f"sample:{row['key']}"
            facts = {name: row[name] for name in ("description", "author", "category", "split")}
            assert record.metadata == {**facts, "keywords": ", ".join(row["keywords"])}
    assert (source.spec, source.count) == (spec, len(expected))


def test_every_uri_leads_back_to_its_picture(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert read_uri(f"sample:{row['key']}") == row["image"]
    with pytest.raises(SourceError, match="no picture 'animals/99'"):
        read_uri("sample:animals/99")


def test_an_unknown_split_lists_the_known_ones(rows: list[dict[str, Any]]) -> None:
    with pytest.raises(SourceError, match=r"'tets'. Did you mean 'test'\? Known: test, train, validation"):
        open_source("sample:tets")


def test_columns_cannot_be_named_for_the_sample(rows: list[dict[str, Any]]) -> None:
    with pytest.raises(SourceError, match="no column can be named"):
        open_source("sample", caption_column="description")


def test_a_package_without_its_sample_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "sample_path", lambda: tmp_path / "none.parquet")
    with pytest.raises(SourceError, match="bundled sample is missing"):
        open_source("sample")
    with pytest.raises(SourceError, match="bundled sample is missing"):
        read_uri("sample:x")


def test_the_sample_lies_in_the_package() -> None:
    import crossmodal

    assert sample.sample_path().parent.parent == Path(crossmodal.__path__[0])
