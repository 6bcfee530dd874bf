import csv
import datetime
import json
import math
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crossmodal.errors import SourceError
from crossmodal.sources import open_source, read_uri

Picture = Callable[..., bytes]


@pytest.fixture
def folder(tmp_path: Path, picture: Picture) -> Path:
    """A folder with the pictures a.png ... d.png and ``img/e f.png``."""
    for number, name in enumerate(("a.png", "b.png", "c.png", "d.png", "img/e f.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(picture(number))
    return tmp_path


def write(path: Path, rows: list[dict[str, object]], delimiter: str = ",") -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="\t" if path.suffix == ".tsv" else delimiter)
            writer.writeheader()
            writer.writerows(rows)
    return path


HARD = [
    'a "quoted", listed\nand broken caption',
    "Bär 犬 🐕",
    " kept as typed ",
    "007",
    "NA",
    "null",
    "[1]",
    "nan",
]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_captions_and_metadata_come_as_they_were_written(folder: Path, suffix: str) -> None:
    names = ["a.png", "img/e f.png", "./b.png", "c.png"]
    rows = [
        {"image": names[i % 4], "caption": text, "year": 1990 + i % 4, "score": (i % 4) / 4, "ok": i % 2 == 0}
        for i, text in enumerate(HARD)
    ]
    source = open_source(write(folder / f"pairs.{suffix}", rows))
    records = list(source)
    assert [record.key for record in records] == ["a.png", "img/e f.png", "b.png", "c.png"]
    for i, record in enumerate(records):
        assert record.captions == (HARD[i], HARD[i + 4])
        assert record.metadata == {"year": 1990 + i, "score": i / 4, "ok": i % 2 == 0}
        assert type(record.metadata["year"]) is int
        assert record.image == folder / names[i]
        assert record.uri == str(folder / record.key)
        assert read_uri(record.uri) == (folder / names[i]).read_bytes()
    assert source.count == 4
    assert source.skipped == []
    assert source.spec == str(folder / f"pairs.{suffix}")
    assert list(source) == records, "a second iteration gives the same"


def test_five_captions_in_rows_far_apart_are_one_record_in_order(folder: Path) -> None:
    rows = [{"image": f"{n}.png", "caption": f"{n}{i}"} for i in range(5) for n in "dbca"]
    source = open_source(write(folder / "pairs.csv", rows))
    assert {record.key: record.captions for record in source} == {
        f"{n}.png": tuple(f"{n}{i}" for i in range(5)) for n in "abcd"
    }
    assert [record.key for record in source] == ["d.png", "b.png", "c.png", "a.png"]


def test_grouping_agrees_with_a_dictionary_over_many_blocks(tmp_path: Path, picture: Picture) -> None:
    import random

    dice = random.Random(5)
    (tmp_path / "0.png").write_bytes(picture())
    expected: dict[str, list[str]] = {}
    rows = []
    for i in range(20_000):
        name = f"{dice.randrange(6000)}.png"
        expected.setdefault(name, []).append(f"c{i}")
        rows.append({"image": name, "caption": f"c{i}"})
    expected.setdefault("0.png", []).append("last")
    rows.append({"image": "0.png", "caption": "last"})
    for suffix in ("csv", "jsonl"):
        source = open_source(write(tmp_path / f"pairs.{suffix}", rows))
        found = {record.key: list(record.captions) for record in source}
        assert found == expected
        assert list(found) == list(expected), "records come in the order of their first row"
        assert source.count == len(expected)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_captions_may_be_a_list(folder: Path, suffix: str) -> None:
    captions = ["one", 'two, "quoted"', "三"]
    written: object = json.dumps(captions) if suffix == "csv" else captions
    rows: list[dict[str, object]] = [
        {"image": "a.png", "captions": written},
        {"image": "b.png", "captions": None},
    ]
    first, second = open_source(write(folder / f"pairs.{suffix}", rows))
    assert first.captions == tuple(captions)
    assert second.captions == ()


def test_a_caption_and_captions_beside_each_other_are_both_kept(folder: Path) -> None:
    rows: list[dict[str, object]] = [
        {"image": "a.png", "caption": "first"},
        {"image": "b.png", "captions": ["second", "again", "again"]},
        {"image": "c.png", "caption": "third", "captions": ["third", "fourth"]},
    ]
    records = list(open_source(write(folder / "pairs.jsonl", rows)))
    assert [r.captions for r in records] == [("first",), ("second", "again", "again"), ("third", "fourth")]
    assert all(not r.metadata for r in records)


def test_several_caption_columns_are_taken_in_the_order_named(folder: Path) -> None:
    rows: list[dict[str, object]] = [{"image": "a.png", "de": "rot", "en": "red", "fr": ""}]
    (record,) = open_source(write(folder / "pairs.csv", rows), caption_column="en, de,fr")
    assert record.captions == ("red", "rot")
    assert record.metadata == {}


def test_numbered_caption_columns_are_found(folder: Path) -> None:
    rows: list[dict[str, object]] = [{"image": "a.png", **{f"caption_{i}": f"c{i}" for i in (10, 2, 0)}}]
    (record,) = open_source(write(folder / "pairs.csv", rows))
    assert record.captions == ("c0", "c2", "c10")


@pytest.mark.parametrize("image", ["image", "file_name", "filepath", "path", "Image_Path", "filename"])
@pytest.mark.parametrize("caption", ["caption", "captions", "title", "TEXT"])
def test_usual_names_of_columns_are_known(folder: Path, image: str, caption: str) -> None:
    (record,) = open_source(write(folder / "pairs.csv", [{caption: "red", image: "a.png", "other": "x"}]))
    assert (record.key, record.captions, record.metadata) == ("a.png", ("red",), {"other": "x"})


def test_the_first_usual_name_wins_and_the_others_are_metadata(folder: Path) -> None:
    rows: list[dict[str, object]] = [{"text": "t", "caption": "c", "path": "b.png", "image": "a.png"}]
    (record,) = open_source(write(folder / "pairs.csv", rows))
    assert (record.key, record.captions) == ("a.png", ("c",))
    assert record.metadata == {"text": "t", "path": "b.png"}


def test_paths_are_relative_to_the_table_and_may_be_absolute_or_above(folder: Path, picture: Picture) -> None:
    (folder / "tables").mkdir()
    (folder / "tables" / "own.png").write_bytes(picture(7))
    written = ["own.png", "../a.png", str(folder / "b.png"), str(folder / "tables" / "own.png")]
    rows: list[dict[str, object]] = [{"image": name, "caption": name} for name in written]
    records = list(open_source(write(folder / "tables" / "pairs.csv", rows)))
    assert [record.key for record in records] == ["own.png", "../a.png", str(folder / "b.png")]
    assert records[0].captions == (written[0], written[3]), "the same file named in two ways is one record"
    for record, name in zip(records, ("tables/own.png", "a.png", "b.png"), strict=True):
        assert read_uri(record.uri) == (folder / name).read_bytes()


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_keys_stay_as_written(folder: Path, suffix: str) -> None:
    keys = ["007", "1e5", "NA", "true"]
    rows: list[dict[str, object]] = [
        {"id": k, "image": f"{n}.png"} for k, n in zip(keys, "abcd", strict=True)
    ]
    assert [record.key for record in open_source(write(folder / f"pairs.{suffix}", rows))] == keys


def test_whole_numbers_serve_as_keys(folder: Path) -> None:
    rows: list[dict[str, object]] = [{"id": 10, "image": "a.png"}, {"id": None, "image": "b.png"}]
    assert [record.key for record in open_source(write(folder / "p.jsonl", rows))] == ["10", "b.png"]


def test_the_second_picture_of_a_key_is_skipped_and_told(folder: Path) -> None:
    rows: list[dict[str, object]] = [
        {"key": "k", "image": "a.png", "caption": "1"},
        {"key": "k", "image": "b.png", "caption": "2"},
        {"key": "k", "image": "a.png", "caption": "3"},
    ]
    source = open_source(write(folder / "pairs.csv", rows))
    for _ in range(2):
        (record,) = source
        assert (record.key, record.captions) == ("k", ("1", "3"))
        assert [key for key, _ in source.skipped] == ["k"]
        assert "b.png" in source.skipped[0][1]
    assert source.count == 1


def test_key_decides_what_belongs_together_and_id_only_numbers_rows(folder: Path) -> None:
    rows: list[dict[str, object]] = [{"n": str(i), "image": "a.png", "caption": f"c{i}"} for i in range(3)]
    for column, expected in (
        ("key", [("0", ("c0",)), ("1", ("c1",)), ("2", ("c2",))]),
        ("id", [("0", ("c0", "c1", "c2"))]),
    ):
        renamed = [{column if name == "n" else name: value for name, value in row.items()} for row in rows]
        source = open_source(write(folder / "pairs.csv", renamed))
        assert [(record.key, record.captions) for record in source] == expected
        assert source.count == len(expected)
    source = open_source(write(folder / "pairs.csv", rows), key_column="n")
    assert [record.key for record in source] == ["0", "1", "2"]


def test_csv_cells_get_the_type_of_their_whole_column(folder: Path) -> None:
    columns = {
        "whole": (["1", "-20", "", "NA"], [1, -20, None, None]),
        "real": (["1", "2.5", "nan", "1e-3"], [1.0, 2.5, None, 0.001]),
        "code": (["1", "02", "3", "4"], ["1", "02", "3", "4"]),
        "late": (["1", "2", "3", "x"], ["1", "2", "3", "x"]),
        "huge": (["1", "2", "3", "9" * 20], ["1", "2", "3", "9" * 20]),
        "truth": (["true", "FALSE", "", "True"], [True, False, None, True]),
        "day": (
            ["2024-02-29", "", "1999-12-31", "2000-01-01"],
            [datetime.date(2024, 2, 29), None, datetime.date(1999, 12, 31), datetime.date(2000, 1, 1)],
        ),
        "noday": (
            ["2024-02-30", "", "1999-12-31", "2000-01-01"],
            ["2024-02-30", None, "1999-12-31", "2000-01-01"],
        ),
        "time": (
            ["2024-02-29 10:30", "2024-02-29T10:30:15.25", "", ""],
            [
                datetime.datetime(2024, 2, 29, 10, 30),
                datetime.datetime(2024, 2, 29, 10, 30, 15, 250000),
                None,
                None,
            ],
        ),
        "word": (["NA", "null", "", "x"], ["NA", "null", None, "x"]),
        "none": (["", "", "", ""], [None, None, None, None]),
    }
    rows = [
        {"image": f"{'abcd'[i]}.png", **{name: written[i] for name, (written, _) in columns.items()}}
        for i in range(4)
    ]
    records = list(open_source(write(folder / "pairs.csv", rows)))
    for name, (_, expected) in columns.items():
        found = [record.metadata[name] for record in records]
        assert found == expected, name
        assert [type(value) for value in found] == [type(value) for value in expected], name


def test_types_of_json_and_parquet_are_kept_and_nested_values_become_json(folder: Path) -> None:
    row = {
        "image": "a.png",
        "i": 3,
        "f": 1.5,
        "b": True,
        "s": "7",
        "n": None,
        "d": {"a": 1, "b": "ü"},
        "l": [1, 2],
    }
    for suffix in ("jsonl", "parquet"):
        (record,) = open_source(write(folder / f"pairs.{suffix}", [row]))
        metadata = dict(record.metadata)
        assert json.loads(str(metadata.pop("d"))) == {"a": 1, "b": "ü"}
        assert json.loads(str(metadata.pop("l"))) == [1, 2]
        assert metadata == {"i": 3, "f": 1.5, "b": True, "s": "7", "n": None}
        assert type(metadata["b"]) is bool


def test_parquet_times_decimals_and_not_a_number_become_plain_values(folder: Path) -> None:
    import decimal

    moment = datetime.datetime(2024, 5, 17, 12, 30, 15, 123456)
    table = pa.table(
        {
            "image": ["a.png"],
            "ns": pa.array([1715949015123456789], pa.timestamp("ns")),
            "us": pa.array([moment], pa.timestamp("us")),
            "day": pa.array([datetime.date(2024, 5, 17)]),
            "money": pa.array([decimal.Decimal("12.50")]),
            "nan": pa.array([math.nan]),
            "inf": pa.array([math.inf]),
            "kind": pa.array(["x"]).dictionary_encode(),
            "struct": pa.array([{"when": datetime.date(2024, 5, 17), "n": 1}]),
            "raw": pa.array([b"\0\1"]),
        }
    )
    pq.write_table(table, folder / "pairs.parquet")
    (record,) = open_source(folder / "pairs.parquet", image_column="image")
    assert record.metadata == {
        "ns": datetime.datetime(2024, 5, 17, 12, 30, 15, 123456),
        "us": moment,
        "day": datetime.date(2024, 5, 17),
        "money": 12.5,
        "nan": None,
        "inf": None,
        "kind": "x",
        "struct": '{"when": "2024-05-17", "n": 1}',
    }


def test_json_lines_of_unlike_shapes_and_types_are_read(folder: Path) -> None:
    lines = [
        '{"image": "a.png", "caption": "x", "v": 1, "w": 1}',
        '{"image": "b.png", "caption": 7, "v": "one", "extra": true}',
        '{"image": "c.png", "caption": ["y", "z"], "w": 0.5}',
        '{"image": "d.png", "caption": {"raw": "r"}, "w": 99999999999999999999}',
    ]
    (folder / "p.jsonl").write_text("\n\n".join(lines))
    records = list(open_source(folder / "p.jsonl"))
    assert [record.captions for record in records] == [("x",), ("7",), ("y", "z"), ("r",)]
    assert [record.metadata["v"] for record in records] == ["1", "one", None, None]
    assert [record.metadata["extra"] for record in records] == [None, True, None, None]


LARGE = 2**53 + 1  # the first integer that a float rounds


@pytest.mark.parametrize("order", [(LARGE, 0.5), (0.5, LARGE), (-LARGE, 0.5), (0.5, 10**30)])
@pytest.mark.parametrize("apart", [1, 8192, 20_000])  # rows are read in blocks of 8192
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_an_integer_too_large_for_a_float_beside_one_keeps_its_digits(
    folder: Path, suffix: str, apart: int, order: tuple[float, float]
) -> None:
    rows: list[dict[str, object]] = [{"image": "a.png", "n": order[0]}]
    rows += [{"image": "b.png", "n": None}] * (apart - 1)
    rows += [{"image": "c.png", "n": order[1]}]
    records = {record.key: record for record in open_source(write(folder / f"p.{suffix}", rows))}
    assert [records[key].metadata["n"] for key in ("a.png", "c.png")] == [str(value) for value in order]


@pytest.mark.parametrize("apart", [1, 20_000])
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_integers_that_floats_hold_become_floats_beside_them(folder: Path, suffix: str, apart: int) -> None:
    rows: list[dict[str, object]] = [{"image": "a.png", "n": -(2**53)}]
    rows += [{"image": "b.png", "n": None}] * (apart - 1)
    rows += [{"image": "c.png", "n": 0.5}]
    records = {record.key: record for record in open_source(write(folder / f"p.{suffix}", rows))}
    found = [records[key].metadata["n"] for key in ("a.png", "c.png")]
    assert found == [-(2.0**53), 0.5]
    assert [type(value) for value in found] == [float, float]


def test_large_integers_alone_stay_integers(folder: Path) -> None:
    for suffix in ("csv", "jsonl"):
        rows: list[dict[str, object]] = [{"image": "a.png", "n": LARGE}, {"image": "b.png", "n": -(2**63)}]
        found = [r.metadata["n"] for r in open_source(write(folder / f"p.{suffix}", rows))]
        assert found == [LARGE, -(2**63)]


def test_bad_lines_are_told_by_number_and_the_rest_is_read(folder: Path) -> None:
    text = (
        "image,caption\r\n"
        "a.png,fine\r\n"
        "b.png,one,too many\r\n"
        "c.png\r\n"
        '"d.png"x,bad quote\r\n'
        '"img/e f.png","two\r\nlines"\r\n'
        ",no picture\r\n"
        "https://example.org/x.png,far away\r\n"
        '"b.png","never closed\r\n'
        "c.png,still read\r\n"
    )
    (folder / "pairs.csv").write_bytes(text.encode())
    source = open_source(folder / "pairs.csv")
    assert [(record.key, record.captions) for record in source] == [
        ("a.png", ("fine",)),
        ("img/e f.png", ("two\r\nlines",)),
        ("c.png", ("still read",)),
    ]
    reasons = dict(source.skipped)
    assert set(reasons) == {f"pairs.csv line {i}" for i in (3, 4, 5, 8, 9, 10)}
    assert reasons["pairs.csv line 3"] == "3 fields where the header has 2"
    assert reasons["pairs.csv line 4"] == "1 fields where the header has 2"
    assert reasons["pairs.csv line 8"] == "no picture is named"
    assert "is an address" in reasons["pairs.csv line 9"]
    assert len(list(source)) == 3
    assert len(source.skipped) == 6, "told afresh with each iteration"


def test_a_json_line_that_does_not_parse_is_told(folder: Path) -> None:
    lines = [
        '{"image": "a.png"}',
        '{"image": ',
        "[1]",
        '{"image": "\\ud800.png"}',
        "[" * 100_000,
        '{"image": "b.png"}',
    ]
    (folder / "p.jsonl").write_text("\n".join(lines))
    source = open_source(folder / "p.jsonl")
    assert [record.key for record in source] == ["a.png", "b.png"]
    assert [place for place, _ in source.skipped] == [f"p.jsonl line {i}" for i in (2, 3, 4, 5)]


def test_a_table_of_which_no_row_parses_is_refused(folder: Path) -> None:
    (folder / "p.csv").write_text("image,caption\na.png\nb.png\n")
    with pytest.raises(SourceError, match=r"none of its 2 rows .* line 2: 1 fields where the header has 2"):
        open_source(folder / "p.csv")


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_text_that_is_not_utf8_is_refused_with_the_byte(folder: Path, suffix: str) -> None:
    good = b"image,caption\na.png,x\n" if suffix == "csv" else b'{"image": "a.png", "caption": "x"}\n'
    (folder / f"p.{suffix}").write_bytes(good + b"b.png,caf\xe9\n")
    with pytest.raises(
        SourceError, match=rf"byte 0xe9 at position {len(good) + 9}, in line {len(good.splitlines()) + 1}"
    ):
        open_source(folder / f"p.{suffix}")


def test_utf16_is_recognised_and_refused(folder: Path) -> None:
    (folder / "p.csv").write_text("image,caption\na.png,x\n", encoding="utf-16")
    with pytest.raises(SourceError, match="looks like UTF-16"):
        open_source(folder / "p.csv")


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_byte_order_mark_is_no_part_of_the_first_name(folder: Path, suffix: str) -> None:
    text = "image,caption\na.png,x\n" if suffix == "csv" else '{"image": "a.png", "caption": "x"}\n'
    (folder / f"p.{suffix}").write_text(text, encoding="utf-8-sig")
    assert [record.captions for record in open_source(folder / f"p.{suffix}")] == [("x",)]


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_other_delimiters_are_seen_in_the_header(folder: Path, delimiter: str) -> None:
    rows: list[dict[str, object]] = [{"image": "a.png", "caption": "with, comma"}]
    (record,) = open_source(write(folder / "p.csv", rows, delimiter))
    assert record.captions == ("with, comma",)


def test_the_row_numbers_that_pandas_writes_are_left_out(folder: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame({"image": ["a.png", "b.png"], "caption": ["x", "y"], "n": [1, 2]}, index=[5, 6])
    frame.to_csv(folder / "p.csv")
    frame.to_parquet(folder / "p.parquet")
    for name in ("p.csv", "p.parquet"):
        assert [dict(record.metadata) for record in open_source(folder / name)] == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_an_empty_file_is_told(folder: Path, suffix: str) -> None:
    (folder / f"p.{suffix}").write_bytes(b"")
    with pytest.raises(SourceError, match="is empty"):
        open_source(folder / f"p.{suffix}")


def test_a_table_of_a_header_only_is_told(folder: Path) -> None:
    (folder / "p.csv").write_text("image,caption\n")
    pq.write_table(
        pa.table({"image": pa.array([], pa.string()), "caption": pa.array([], pa.string())}),
        folder / "p.parquet",
    )
    for name in ("p.csv", "p.parquet"):
        with pytest.raises(SourceError, match=r"holds no rows \(columns seen: 'image', 'caption'\)"):
            open_source(folder / name)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_table_without_a_column_of_pictures_lists_its_columns(folder: Path, suffix: str) -> None:
    rows: list[dict[str, object]] = [{"imgae": "a.png", "caption": "x"}]
    with pytest.raises(SourceError, match=r"Columns seen: 'imgae', 'caption' \(is it 'imgae'\?\)") as raised:
        open_source(write(folder / f"p.{suffix}", rows))
    assert "\n" not in str(raised.value)


def test_a_misspelt_column_of_captions_is_not_taken_for_metadata(folder: Path) -> None:
    with pytest.raises(SourceError, match=r"no column of captions.*'captoin'"):
        open_source(write(folder / "p.csv", [{"image": "a.png", "captoin": "x"}]))


def test_a_table_without_captions_is_a_table_of_pictures(folder: Path) -> None:
    (record,) = open_source(write(folder / "p.csv", [{"image": "a.png", "year": 1990}]))
    assert (record.captions, record.metadata) == ((), {"year": 1990})


def test_a_named_column_that_is_absent_lists_the_known_ones(folder: Path) -> None:
    path = write(folder / "p.csv", [{"image": "a.png", "caption": "x"}])
    for option in ("image_column", "caption_column", "key_column"):
        with pytest.raises(
            SourceError, match=r"Unknown column 'captio'. Did you mean 'caption'\? Known: caption, image"
        ):
            open_source(path, **{option: "captio"})


def test_two_columns_of_one_name_are_refused(folder: Path) -> None:
    (folder / "p.csv").write_text("image,caption,caption\na.png,x,y\n")
    with pytest.raises(SourceError, match="more than one column called 'caption'"):
        open_source(folder / "p.csv")


def test_a_table_of_which_no_picture_exists_is_refused_with_counts(folder: Path) -> None:
    rows: list[dict[str, object]] = [{"image": f"gone/{i // 2}.png", "caption": "x"} for i in range(6)]
    with pytest.raises(
        SourceError, match=rf"none of the 3 pictures .*Tried for instance {folder}/gone/0\.png"
    ):
        open_source(write(folder / "p.csv", rows))


def test_captions_mistaken_for_paths_are_told_however_long(folder: Path) -> None:
    rows: list[dict[str, object]] = [{"image": "a.png", "caption": "long " * 1000}]
    with pytest.raises(SourceError, match="none of the 1 pictures it names exists"):
        open_source(write(folder / "p.csv", rows), image_column="caption", caption_column="image")


def test_one_missing_picture_is_left_to_whoever_decodes(folder: Path) -> None:
    rows: list[dict[str, object]] = [{"image": name, "caption": "x"} for name in ("gone.png", "a.png")]
    source = open_source(write(folder / "p.csv", rows))
    assert [record.key for record in source] == ["gone.png", "a.png"]
    assert source.skipped == []


def test_a_file_that_is_no_parquet_is_told(folder: Path) -> None:
    (folder / "p.parquet").write_bytes(b"PAR1 but not really" * 10)
    with pytest.raises(SourceError, match="no Parquet file or is damaged") as raised:
        open_source(folder / "p.parquet")
    assert "\n" not in str(raised.value)


def test_iterating_a_long_table_makes_few_python_objects_at_a_time(tmp_path: Path, picture: Picture) -> None:
    """The rows as Python objects, some 500 bytes each, would be 10 MB here."""
    import tracemalloc

    (tmp_path / "0.png").write_bytes(picture())
    with (tmp_path / "p.csv").open("w") as file:
        file.write("image,caption\n")
        file.writelines(f"{i}.png,caption number {i}\n" for i in range(20_000))
    source = open_source(tmp_path / "p.csv")
    tracemalloc.start()
    try:
        assert sum(1 for _ in source) == 20_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5e6
