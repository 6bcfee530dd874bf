"""The bundled sample is what its README says, read from wherever the package is installed."""

import io
from collections import Counter
from importlib import resources

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

MEGABYTE = 10**6


@pytest.fixture(scope="module")
def file_bytes() -> bytes:
    return resources.files("crossmodal").joinpath("sample/openclipart.parquet").read_bytes()


@pytest.fixture(scope="module")
def table(file_bytes: bytes) -> pa.Table:
    return pq.read_table(pa.BufferReader(file_bytes))


@pytest.fixture(scope="module")
def rows(table: pa.Table) -> list[dict]:
    return table.to_pylist()


def test_the_file_stays_under_fifteen_megabytes(file_bytes):
    assert len(file_bytes) <= 15 * MEGABYTE


def test_row_groups_are_small_enough_to_read_one_picture_cheaply(file_bytes):
    metadata = pq.ParquetFile(pa.BufferReader(file_bytes)).metadata
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    assert max(sizes) == 256
    assert sum(sizes) == metadata.num_rows


def test_columns_have_the_names_and_types_that_the_source_expects(table):
    assert {field.name: field.type for field in table.schema} == {
        "key": pa.string(),
        "split": pa.string(),
        "image": pa.binary(),
        "title": pa.string(),
        "description": pa.string(),
        "keywords": pa.list_(pa.string()),
        "author": pa.string(),
        "category": pa.string(),
    }
    assert all(column.null_count == 0 for column in table.columns)


def test_the_file_says_where_it_comes_from_and_under_which_terms(table):
    facts = {name.decode(): value.decode() for name, value in table.schema.metadata.items()}
    assert "openclipart-png" in facts["source"]
    assert "public domain" in facts["licence"]
    assert facts["made_by"] == "scripts/prepare_openclipart.py"


def test_splits_have_their_sizes(rows):
    assert Counter(row["split"] for row in rows) == {"train": 1886, "validation": 250, "test": 500}


def test_rows_are_sorted_by_split_and_key_and_no_key_is_there_twice(rows):
    order = [(row["split"], row["key"]) for row in rows]
    assert order == sorted(order)
    assert len({row["key"] for row in rows}) == len(rows)


@pytest.mark.parametrize("split", ["test", "validation"])
def test_no_other_picture_has_the_title_of_one_that_is_measured_on(rows, split):
    uses = Counter(row["title"].casefold() for row in rows)
    shared = [row["title"] for row in rows if row["split"] == split and uses[row["title"].casefold()] > 1]
    assert shared == []


def test_every_image_decodes_to_rgb_within_256_pixels_and_none_is_there_twice(rows):
    seen: dict[tuple[tuple[int, int], bytes], str] = {}
    for row in rows:
        with Image.open(io.BytesIO(row["image"])) as image:
            assert image.format == "WEBP"
            pixels = image.convert("RGB")
        assert min(pixels.size) >= 1
        assert 24 <= max(pixels.size) <= 256, row["key"]
        twin = seen.setdefault((pixels.size, pixels.tobytes()), row["key"])
        assert twin == row["key"], f"{row['key']} shows the same as {twin}"


def test_texts_are_clean(rows):
    for row in rows:
        assert row["title"], row["key"]
        assert "_" not in row["title"]
        assert row["category"] == row["key"].split("/")[0]
        for text in (row["title"], row["description"], row["author"], *row["keywords"]):
            assert text == " ".join(text.split()), f"{row['key']}: {text!r}"
            assert "@" not in text, f"{row['key']} prints an address: {text!r}"


@pytest.mark.parametrize("word", ["apple", "guitar", "trumpet", "flag", "star"])
def test_the_examples_of_the_demo_have_something_to_find(rows, word):
    assert any(word in row["title"].casefold().split() for row in rows)
