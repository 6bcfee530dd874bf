from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crossmodal.errors import SourceError
from crossmodal.sources import open_source, read_uri

Picture = Callable[..., bytes]


def write(path: Path, columns: dict[str, Any], row_group_size: int = 3) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return path


def test_pictures_held_as_bytes_come_with_their_rows(tmp_path: Path, picture: Picture) -> None:
    pictures = [picture(i, "jpeg" if i % 2 else "png") for i in range(50)]
    captions = [[f"a{i}", f"b{i}"] for i in range(50)]
    path = write(tmp_path / "p.parquet", {"image": pictures, "captions": captions, "n": list(range(50))}, 20)
    source = open_source(path)
    for _ in range(2):
        records = list(source)
        assert [record.image for record in records] == pictures
        assert [record.captions for record in records] == [tuple(pair) for pair in captions]
        assert [record.metadata["n"] for record in records] == list(range(50))
        assert [record.key for record in records] == [str(i) for i in range(50)]
        assert [record.uri for record in records] == [f"{path}#{i}" for i in range(50)]
    assert [read_uri(record.uri) for record in records] == pictures
    assert source.count == 50
    assert source.skipped == []


def test_the_struct_of_hugging_face_gives_bytes_and_key(tmp_path: Path, picture: Picture) -> None:
    cells = [{"bytes": picture(i), "path": f"bild {i}.png"} for i in range(7)]
    path = write(tmp_path / "p.parquet", {"text": [f"t{i}" for i in range(7)], "image": cells})
    source = open_source(path)
    records = list(source)
    assert [record.key for record in records] == [cell["path"] for cell in cells]
    assert [record.image for record in records] == [cell["bytes"] for cell in cells]
    assert [record.captions for record in records] == [(f"t{i}",) for i in range(7)]
    assert source.count == 7


def test_a_parquet_file_that_datasets_wrote_is_read(tmp_path: Path, picture: Picture) -> None:
    import datasets

    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    rows = {"image": [{"bytes": picture(i), "path": None} for i in range(4)], "caption": list("wxyz")}
    datasets.Dataset.from_dict(rows, features).to_parquet(str(tmp_path / "p.parquet"))
    records = list(open_source(tmp_path / "p.parquet"))
    assert [record.image for record in records] == [picture(i) for i in range(4)]
    assert [record.captions for record in records] == [("w",), ("x",), ("y",), ("z",)]


@pytest.mark.parametrize("named", [True, False])
def test_rows_of_the_same_bytes_are_one_record_even_apart(
    tmp_path: Path, picture: Picture, named: bool
) -> None:
    order = [0, 1, 0, 2, 1, 0, 2, 2, 1]
    cells = [{"bytes": picture(n), "path": f"{n}.png" if named else None} for n in order]
    path = write(tmp_path / "p.parquet", {"image": cells, "caption": [f"c{i}" for i in range(9)]}, 2)
    source = open_source(path)
    records = list(source)
    assert [record.captions for record in records] == [
        ("c0", "c2", "c5"),
        ("c1", "c4", "c8"),
        ("c3", "c6", "c7"),
    ]
    assert [record.key for record in records] == (["0.png", "1.png", "2.png"] if named else ["0", "1", "3"])
    assert [record.image for record in records] == [picture(n) for n in range(3)]
    assert [read_uri(record.uri) for record in records] == [picture(n) for n in range(3)]
    assert source.count == 3


def test_a_name_that_different_pictures_share_loses_none_of_them(tmp_path: Path, picture: Picture) -> None:
    cells = [{"bytes": picture(i), "path": "image.png"} for i in range(3)]
    source = open_source(write(tmp_path / "p.parquet", {"image": cells}))
    assert [record.key for record in source] == ["image.png", "image.png#1", "image.png#2"]
    assert [record.image for record in source] == [picture(i) for i in range(3)]


def test_the_second_picture_of_a_key_is_skipped_and_told(tmp_path: Path, picture: Picture) -> None:
    path = write(
        tmp_path / "p.parquet",
        {"key": ["a", "b", "a", "a"], "image": [picture(n) for n in (0, 1, 0, 2)], "caption": list("wxyz")},
    )
    source = open_source(path)
    assert [(record.key, record.captions) for record in source] == [("a", ("w", "y")), ("b", ("x",))]
    assert [key for key, _ in source.skipped] == ["a"]
    assert f"{path}#3" in source.skipped[0][1]


def test_rows_without_a_picture_are_told(tmp_path: Path, picture: Picture) -> None:
    path = write(
        tmp_path / "p.parquet",
        {"image": pa.array([picture(0), None, b"", picture(1)]), "caption": list("wxyz")},
    )
    source = open_source(path)
    assert [record.captions for record in source] == [("w",), ("z",)]
    assert source.skipped == [
        ("p.parquet row 1", "no picture in its cell"),
        ("p.parquet row 2", "no picture in its cell"),
    ]


def test_a_table_without_any_picture_is_refused(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.parquet", {"image": pa.array([None, None], pa.binary()), "caption": ["x", "y"]}
    )
    with pytest.raises(SourceError, match="no picture in any of the 2 cells of 'image'"):
        list(open_source(path))


def test_a_struct_that_holds_only_a_path_names_a_file(tmp_path: Path, picture: Picture) -> None:
    (tmp_path / "a.png").write_bytes(picture())
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = pa.array([{"bytes": None, "path": "a.png"}], kind)
    (record,) = open_source(write(tmp_path / "p.parquet", {"image": cells}))
    assert (record.key, record.image, record.uri) == ("a.png", tmp_path / "a.png", str(tmp_path / "a.png"))


def test_an_unusual_column_of_bytes_is_found_or_named(tmp_path: Path, picture: Picture) -> None:
    one = write(tmp_path / "one.parquet", {"caption": ["x"], "jpg bytes": [picture(1)]})
    (record,) = open_source(one)
    assert (record.image, record.uri) == (picture(1), f"{one}#0")
    assert read_uri(record.uri) == picture(1)
    two = write(tmp_path / "two.parquet", {"image": [picture(0)], "thumb": [picture(1)], "caption": ["x"]})
    (record,) = open_source(two, image_column="thumb")
    assert (record.image, record.uri) == (picture(1), f"{two}#0:thumb")
    assert read_uri(record.uri) == picture(1)
    assert read_uri(f"{two}#0") == picture(0)
    none = write(tmp_path / "none.parquet", {"x": [picture(0)], "y": [picture(1)], "caption": ["x"]})
    with pytest.raises(SourceError, match="Columns seen: 'x', 'y', 'caption'"):
        open_source(none)


def test_a_column_of_lists_of_pictures_is_refused(tmp_path: Path, picture: Picture) -> None:
    path = write(tmp_path / "p.parquet", {"image": [[picture(0), picture(1)]], "caption": ["x"]})
    with pytest.raises(SourceError, match="'image' holds neither paths nor single pictures"):
        open_source(path)


def test_memory_does_not_grow_with_the_pictures(tmp_path: Path) -> None:
    """64 MB of pictures in row groups of 4 MB; Arrow may hold a few such groups, never all."""
    import os

    cells = [os.urandom(2**20) for _ in range(64)]
    path = write(tmp_path / "p.parquet", {"image": cells, "key": [str(i) for i in range(64)]}, 4)
    del cells
    source = open_source(path)
    before = pa.total_allocated_bytes()
    highest = 0
    for record in source:
        assert len(record.image) == 2**20  # type: ignore[arg-type]
        highest = max(highest, pa.total_allocated_bytes() - before)
    assert 0 < highest < 32 * 2**20


def test_rows_are_found_in_any_row_group(tmp_path: Path, picture: Picture) -> None:
    path = write(tmp_path / "p.parquet", {"image": [picture(i) for i in range(40)]}, 7)
    for row in (0, 6, 7, 20, 39):
        assert read_uri(f"{path}#{row}") == picture(row)
    for fragment in ("40", "-1", "x", "", "0:none"):
        with pytest.raises(SourceError):
            read_uri(f"{path}#{fragment}")


def test_a_file_cut_off_is_told(tmp_path: Path, picture: Picture) -> None:
    path = write(tmp_path / "p.parquet", {"image": [picture(i) for i in range(40)]})
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SourceError, match="no Parquet file or is damaged"):
        open_source(path)
