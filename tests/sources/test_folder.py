import contextlib
import csv
import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crossmodal.errors import SourceError
from crossmodal.sources import open_source, read_uri

Picture = Callable[..., bytes]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "pictures"
    path.mkdir()
    return path


def fill(folder: Path, picture: Picture, *names: str) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(number))


def keys(source: object) -> list[str]:
    return [record.key for record in source]  # type: ignore[attr-defined]


def test_pictures_come_recursively_sorted_by_their_path(folder: Path, picture: Picture) -> None:
    fill(folder, picture, "b.png", "a/z.PNG", "a.png", "a-b/c.jpg", "a/ü mit Raum.webp", "犬.png", "a0.gif")
    (folder / "notes.pdf").write_bytes(b"no picture")
    source = open_source(folder)
    expected = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".pdf"
    )
    records = list(source)
    assert [record.key for record in records] == expected
    assert source.count == len(expected) == 7
    for record in records:
        assert record.uri == str(folder / record.key)
        assert record.captions == ()
        assert Path(record.image).read_bytes() == read_uri(record.uri)  # type: ignore[arg-type]
    assert source.spec == str(folder)
    assert keys(source) == expected, "a second iteration gives the same"


def test_a_relative_folder_is_named_by_its_absolute_path(
    folder: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder, picture, "a.png")
    monkeypatch.chdir(folder.parent)
    assert open_source("pictures/").spec == str(folder)
    assert open_source("./pictures/../pictures").spec == str(folder)


def test_hidden_files_and_folders_are_left_out(folder: Path, picture: Picture) -> None:
    fill(folder, picture, "a.png", ".b.png", ".cache/c.png", "d/.e/f.png")
    source = open_source(folder)
    assert keys(source) == ["a.png"]
    assert source.count == 1


def test_links_are_followed_once_and_loops_end(folder: Path, picture: Picture, tmp_path: Path) -> None:
    fill(folder, picture, "a/b.png", ".hidden/h.png")
    fill(tmp_path / "elsewhere", picture, "c.png")
    (folder / "a" / "loop").symlink_to(folder)
    (folder / "again").symlink_to(folder / "a")
    (folder / "out").symlink_to(tmp_path / "elsewhere")
    (folder / "out2").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "elsewhere")
    (folder / "shown").symlink_to(folder / ".hidden")
    (folder / "link.png").symlink_to(tmp_path / "elsewhere" / "c.png")
    (folder / "broken.png").symlink_to(tmp_path / "nothing.png")
    (folder / "itself").symlink_to(folder / "itself")
    source = open_source(folder)
    assert keys(source) == ["a/b.png", "broken.png", "link.png", "out/c.png", "shown/h.png"]
    assert [key for key, _ in source.skipped] == source.hiding == ["itself"]


def test_a_link_to_a_folder_that_is_away_hides_what_lay_behind_it(
    folder: Path, picture: Picture, tmp_path: Path
) -> None:
    fill(folder, picture, "a.png", "sub/b.png")
    (folder / "sub" / "nas.2024").symlink_to(tmp_path / "not mounted")
    (folder / "gone.png").symlink_to(tmp_path / "gone.png")
    source = open_source(folder)
    assert keys(source) == ["a.png", "gone.png", "sub/b.png"]
    assert source.skipped == [("sub/nas.2024", "a link that leads nowhere")]
    assert source.hiding == ["sub/nas.2024"]
    fill(tmp_path / "not mounted", picture, "c.png")
    assert keys(source) == ["a.png", "gone.png", "sub/b.png", "sub/nas.2024/c.png"]
    assert source.skipped == source.hiding == []


def test_a_name_that_may_not_be_looked_at_hides_what_lies_behind_it(
    folder: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permissions do not bind root, who may run this; so the directory itself refuses."""
    fill(folder, picture, "a.png", "stale/b.png", "stale.png")
    scandir = os.scandir

    class Stale:
        def __init__(self, entry: os.DirEntry[str]) -> None:
            self.name, self.path = entry.name, entry.path

        def is_dir(self) -> bool:
            raise OSError(errno.ESTALE, "Stale file handle")

    @contextlib.contextmanager
    def refuse(path: str) -> Iterator[Iterator[object]]:
        with scandir(path) as entries:
            yield (Stale(entry) if entry.name.startswith("stale") else entry for entry in entries)

    source = open_source(folder)
    monkeypatch.setattr(os, "scandir", refuse)
    assert keys(source) == ["a.png"]
    assert sorted(source.skipped) == [("stale", "Stale file handle"), ("stale.png", "Stale file handle")]
    assert sorted(source.hiding) == ["stale", "stale.png"]


def test_a_pipe_with_the_name_of_a_picture_is_told_and_not_opened(folder: Path, picture: Picture) -> None:
    fill(folder, picture, "a.png")
    os.mkfifo(folder / "b.png")
    source = open_source(folder)
    assert keys(source) == ["a.png"]
    assert source.skipped == [("b.png", "neither a file nor a folder")]
    (folder / "c.png").symlink_to(folder / "b.png")
    assert keys(source) == ["a.png"]
    assert [key for key, _ in source.skipped] in (["b.png", "c.png"], ["c.png", "b.png"])
    assert source.hiding == []


def test_a_name_that_is_not_utf8_is_told(folder: Path, picture: Picture) -> None:
    fill(folder, picture, "a.png")
    try:
        with open(os.fsencode(folder) + b"/caf\xe9.png", "wb") as file:  # noqa: PTH123
            file.write(picture())
    except OSError:
        assert os.fsencode("ä") == "ä".encode(), "a file system that takes no such name has nothing to tell"
        return
    source = open_source(folder)
    assert keys(source) == ["a.png"]
    assert source.skipped == [("caf\\udce9.png", "its name is not UTF-8")]


def test_sidecar_gives_a_caption_per_line(folder: Path, picture: Picture) -> None:
    fill(folder, picture, "a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.v2.jpg")
    five = ["one, with a comma", 'two "quoted"', "drei Hörnchen", "四", "five\u2028still five"]
    (folder / "a.txt").write_bytes("\r\n".join([*five, "", "   ", ""]).encode())
    (folder / "b.txt").write_bytes(b"\xef\xbb\xbfwith a mark\rold Mac line\n")
    (folder / "c.TXT").write_text("capital suffix")
    (folder / "d.txt").write_bytes(b"")
    (folder / "e.v2.txt").write_text("name with dots")
    source = open_source(folder)
    captions = {record.key: record.captions for record in source}
    assert captions == {
        "a.jpg": tuple(five),
        "b.jpg": ("with a mark", "old Mac line"),
        "c.jpg": ("capital suffix",),
        "d.jpg": (),
        "e.v2.jpg": ("name with dots",),
    }
    assert source.skipped == []


def test_a_picture_whose_captions_cannot_be_read_is_told_and_left_out(
    folder: Path, picture: Picture, tmp_path: Path
) -> None:
    """A record without them would take the captions away that a collection read in better days."""
    fill(folder, picture, "a.jpg", "b.jpg", "c.jpg", "e.jpg", "f.jpg", "g.jpg")
    (folder / "a.txt").write_bytes(b"caf\xe9")
    (folder / "b.txt").write_bytes("ein Text".encode("utf-16"))
    (folder / "c.txt").write_bytes(b"x" * (2**20 + 1))
    (folder / "e.txt").symlink_to(tmp_path / "not mounted" / "e.txt")
    (folder / "f.txt").symlink_to(folder / "f.txt")
    (folder / "g.txt").write_text("fine")
    source = open_source(folder)
    for _ in range(2):
        assert [(record.key, record.captions) for record in source] == [("g.jpg", ("fine",))]
        reasons = {key: reason for key, reason in source.skipped if key.endswith(".jpg")}
        assert all(reason.startswith("captions not read: ") for reason in reasons.values())
        assert "a.txt: not UTF-8 text: byte 0xe9 at position 3" in reasons["a.jpg"]
        assert "UTF-16" in reasons["b.jpg"]
        assert "too large" in reasons["c.jpg"]
        assert "No such file" in reasons["e.jpg"]
        assert "f.txt: Too many levels" in reasons["f.jpg"]
        assert len(reasons) == 5


def test_a_sidecar_is_not_missed_where_metadata_gives_the_captions(folder: Path, picture: Picture) -> None:
    fill(folder, picture, "a.jpg", "b.jpg")
    for name in ("a.txt", "b.txt"):
        (folder / name).write_bytes(b"caf\xe9")
    write_metadata(
        folder / "metadata.jsonl",
        [{"key": "A", "file_name": "a.jpg", "text": "x"}, {"key": "B", "file_name": "b.jpg", "text": ""}],
    )
    source = open_source(folder)
    assert [(record.key, record.captions) for record in source] == [("A", ("x",))]
    assert [key for key, _ in source.skipped] == ["B"]


def test_metadata_behind_a_link_that_leads_nowhere_is_refused(folder: Path, picture: Picture) -> None:
    fill(folder, picture, "a.jpg")
    (folder / "metadata.csv").symlink_to(folder / "gone.csv")
    with pytest.raises(SourceError, match=r"No such table: .*metadata\.csv"):
        open_source(folder)


def test_a_lonely_sidecar_is_told(folder: Path, picture: Picture) -> None:
    fill(folder, picture, "a.jpg")
    (folder / "d.txt").write_text("whose?")
    source = open_source(folder)
    assert keys(source) == ["a.jpg"]
    assert source.skipped == [("d.txt", "no picture of the same name is beside this text")]


ROWS = [
    {"file_name": "a.png", "text": 'says "hi", twice\nand again', "stars": 3, "note": "007"},
    {"file_name": "sub/b c.png", "text": "ein Bär", "stars": 5, "note": "NA"},
]


def write_metadata(path: Path, rows: list[dict[str, object]]) -> None:
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\r\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_metadata_gives_captions_and_typed_facts(folder: Path, picture: Picture, suffix: str) -> None:
    fill(folder, picture, "a.png", "sub/b c.png", "z.png")
    (folder / "z.txt").write_text("beside it")
    write_metadata(folder / f"metadata.{suffix}", ROWS)
    source = open_source(folder)
    records = list(source)
    assert [record.key for record in records] == ["a.png", "sub/b c.png", "z.png"]
    assert [record.captions for record in records] == [(ROWS[0]["text"],), (ROWS[1]["text"],), ("beside it",)]
    assert records[0].metadata == {"stars": 3, "note": "007"}
    assert records[1].metadata == {"stars": 5, "note": "NA"}
    assert records[2].metadata == {}
    assert source.count == 3
    assert source.skipped == []


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_files_captions_and_order_agree_with_imagefolder(
    folder: Path, picture: Picture, tmp_path: Path, suffix: str
) -> None:
    import datasets

    fill(folder, picture, "a.png", "sub/b c.png", "sub/deep/ü.png")
    write_metadata(
        folder / f"metadata.{suffix}",
        [{name: row[name] for name in ("file_name", "text", "stars")} for row in ROWS],
    )
    write_metadata(
        folder / "sub" / "deep" / f"metadata.{suffix}",
        [{"file_name": "ü.png", "text": "a third", "stars": 1}],
    )
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(folder), cache_dir=str(tmp_path / "cache"), split="train"
    ).cast_column("image", datasets.Image(decode=False))
    expected = {row["image"]["path"]: (row["text"], row["stars"]) for row in loaded}
    ours = {record.uri: (record.captions[0], record.metadata["stars"]) for record in open_source(folder)}
    assert ours == expected
    assert len(ours) == 3


def test_pictures_without_metadata_agree_with_imagefolder(
    folder: Path, picture: Picture, tmp_path: Path
) -> None:
    import datasets

    fill(folder, picture, "x/1.png", "x/2.jpg", "y/3.webp", "y/z/4.gif")
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(folder), cache_dir=str(tmp_path / "cache"), split="train"
    ).cast_column("image", datasets.Image(decode=False))
    assert {record.uri for record in open_source(folder)} == {row["image"]["path"] for row in loaded}


def test_several_rows_of_a_picture_are_one_record_even_apart(folder: Path, picture: Picture) -> None:
    fill(folder, picture, "a.png", "b.png")
    order = ["a.png", "b.png", "./a.png", "b.png", "a.png"]
    write_metadata(
        folder / "metadata.csv",
        [{"file_name": name, "caption": f"caption {i}"} for i, name in enumerate(order)],
    )
    captions = {record.key: record.captions for record in open_source(folder)}
    assert captions == {
        "a.png": ("caption 0", "caption 2", "caption 4"),
        "b.png": ("caption 1", "caption 3"),
    }


def test_listed_files_that_are_missing_still_become_records(folder: Path, picture: Picture) -> None:
    fill(folder, picture, "b.png")
    write_metadata(
        folder / "metadata.jsonl",
        [{"file_name": n, "text": n} for n in ("gone.png", "b.png", "also gone.png")],
    )
    source = open_source(folder)
    assert [(record.key, record.captions) for record in source] == [
        ("b.png", ("b.png",)),
        ("gone.png", ("gone.png",)),
        ("also gone.png", ("also gone.png",)),
    ]
    assert source.count == 3


def test_metadata_of_which_nothing_exists_is_refused_with_counts(folder: Path, picture: Picture) -> None:
    fill(folder, picture, "b.png")
    write_metadata(folder / "metadata.jsonl", [{"file_name": f"img/{i}.jpg", "text": "t"} for i in range(3)])
    with pytest.raises(SourceError, match=r"none of the 3 pictures listed .* and 1 others do.*img/0\.jpg"):
        open_source(folder)


def test_metadata_that_leaves_the_folder_is_told(folder: Path, picture: Picture) -> None:
    fill(folder, picture, "b.png")
    fill(folder.parent, picture, "secret.png")
    outside = ["../secret.png", str(folder.parent / "secret.png"), "sub/../../secret.png"]
    write_metadata(folder / "metadata.jsonl", [{"file_name": n, "text": "t"} for n in ("b.png", *outside)])
    source = open_source(folder)
    assert keys(source) == ["b.png"]
    assert [place for place, _ in source.skipped] == [f"metadata.jsonl line {i}" for i in (2, 3, 4)]
    assert all("outside the folder" in reason for _, reason in source.skipped)


def test_bad_rows_of_metadata_are_told_by_line(folder: Path, picture: Picture) -> None:
    fill(folder, picture, "a.png", "b.png")
    (folder / "metadata.csv").write_text("file_name,text\na.png,fine\nb.png,one,two\n,nothing\n")
    source = open_source(folder)
    assert [(record.key, record.captions) for record in source] == [("a.png", ("fine",)), ("b.png", ())]
    assert source.skipped == [
        ("metadata.csv line 3", "3 fields where the header has 2"),
        ("metadata.csv line 4", "no picture is named"),
    ]


def test_a_key_column_in_metadata_gives_the_keys(folder: Path, picture: Picture) -> None:
    fill(folder, picture, "a.png", "b.png", "c.png")
    write_metadata(
        folder / "metadata.csv",
        [{"id": key, "file_name": name, "text": name} for key, name in (("007", "a.png"), ("007", "b.png"))],
    )
    source = open_source(folder)
    assert keys(source) == ["007", "c.png"]
    assert [key for key, _ in source.skipped] == ["007"]
    assert "b.png" in source.skipped[0][1]


def test_named_columns_are_used_and_unknown_ones_refused(folder: Path, picture: Picture) -> None:
    fill(folder, picture, "a.png")
    write_metadata(folder / "metadata.csv", [{"foto": "a.png", "wort": "rot", "satz": "es ist rot"}])
    (record,) = open_source(folder, image_column="foto", caption_column="wort,satz")
    assert record.captions == ("rot", "es ist rot")
    with pytest.raises(
        SourceError, match=r"Unknown column 'worte'. Did you mean 'wort'\? Known: foto, satz, wort"
    ):
        open_source(folder, image_column="foto", caption_column="worte")
    with pytest.raises(SourceError, match=r"no column of pictures\. Columns seen: 'foto', 'wort', 'satz'"):
        open_source(folder)


def test_columns_cannot_be_named_where_there_are_none(folder: Path, picture: Picture) -> None:
    fill(folder, picture, "a.png")
    with pytest.raises(SourceError, match="no metadata file"):
        open_source(folder, caption_column="text")


def test_two_metadata_files_in_one_folder_are_refused(folder: Path, picture: Picture) -> None:
    fill(folder, picture, "a.png")
    for suffix in ("csv", "jsonl"):
        write_metadata(folder / f"metadata.{suffix}", [{"file_name": "a.png", "text": "x"}])
    with pytest.raises(SourceError, match=r"metadata\.csv and metadata\.jsonl"):
        open_source(folder)


def test_an_empty_folder_is_told(folder: Path) -> None:
    with pytest.raises(SourceError, match="is empty"):
        open_source(folder)


def test_a_folder_without_pictures_says_what_it_holds(folder: Path) -> None:
    for name in ("a.pdf", "b.PDF", "c.doc", "README", ".hidden", "sub/d.pdf"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"")
    with pytest.raises(
        SourceError, match=r"\.pdf \(3\), no suffix \(1\), \.doc \(1\), hidden \(1\)"
    ) as raised:
        open_source(folder)
    assert ".jpeg" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_folder_of_shards_suggests_the_pattern(folder: Path) -> None:
    (folder / "0.tar").write_bytes(b"")
    with pytest.raises(SourceError, match=r"for shards give '.*pictures/\*\.tar'"):
        open_source(folder)


def test_a_subfolder_that_cannot_be_read_is_told(
    folder: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder, picture, "a.png", "locked/b.png")
    scandir = os.scandir

    def refuse(path: str | Path) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)  # permissions do not bind root, who may run this
    source = open_source(folder)
    assert keys(source) == ["a.png"]
    assert source.skipped == [("locked/", "the folder cannot be read: Permission denied")]
    assert source.hiding == ["locked/"]


def test_a_folder_tells_what_appears_between_two_iterations(folder: Path, picture: Picture) -> None:
    fill(folder, picture, "a.png")
    source = open_source(folder)
    assert keys(source) == ["a.png"]
    fill(folder, picture, "b.png")
    assert keys(source) == ["a.png", "b.png"]


def test_a_folder_is_listed_while_it_is_iterated(
    folder: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder, picture, *(f"{i:03}/a.png" for i in range(100)))
    source = open_source(folder)
    listed: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(str(path)) or scandir(path))
    assert next(iter(source)).key == "000/a.png"
    assert len(listed) == 2, "the root and the first folder"
