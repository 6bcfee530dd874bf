import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crossmodal.errors import SourceError
from crossmodal.sources import open_source, read_uri

Picture = Callable[..., bytes]


def make(picture: Picture, start: int, stop: int, **more: list[Any]) -> Any:
    import datasets

    columns = {
        "image": [{"bytes": picture(i), "path": None} for i in range(start, stop)],
        "caption": [[f"a{i}", f"b{i}"] for i in range(start, stop)],
        "label": [i % 2 for i in range(start, stop)],
        **more,
    }
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "caption": [datasets.Value("string")],
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            **{name: datasets.Value("string") for name in more},
        }
    )
    return datasets.Dataset.from_dict(columns, features)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what datasets prepares out of the home folder."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def saved(tmp_path: Path, picture: Picture) -> Path:
    """Two splits as ``save_to_disk`` writes them."""
    import datasets

    both = datasets.DatasetDict({"train": make(picture, 0, 6), "test": make(picture, 6, 9)})
    both.save_to_disk(str(tmp_path / "saved"))
    return tmp_path / "saved"


def test_a_saved_split_gives_bytes_captions_and_names_of_classes(saved: Path, picture: Picture) -> None:
    source = open_source(f"hf:{saved}:test")
    for _ in range(2):
        records = list(source)
        assert [record.image for record in records] == [picture(i) for i in (6, 7, 8)]
        assert [record.captions for record in records] == [(f"a{i}", f"b{i}") for i in (6, 7, 8)]
        assert [record.metadata for record in records] == [
            {"label": "cat"},
            {"label": "dog"},
            {"label": "cat"},
        ]
        assert [record.key for record in records] == ["0", "1", "2"]
        assert [record.uri for record in records] == [f"hf:{saved}:test#{i}" for i in range(3)]
    assert [read_uri(record.uri) for record in records] == [picture(i) for i in (6, 7, 8)]
    assert source.spec == f"hf:{saved}:test"


def test_all_splits_come_where_none_is_named(saved: Path, picture: Picture) -> None:
    source = open_source(f"hf:{saved}")
    records = list(source)
    assert [record.key for record in records] == [f"train/{i}" for i in range(6)] + [
        f"test/{i}" for i in range(3)
    ]
    assert [record.metadata["split"] for record in records] == ["train"] * 6 + ["test"] * 3
    assert [read_uri(record.uri) for record in records] == [picture(i) for i in range(9)]
    assert source.count == 9


def test_names_that_two_splits_share_are_told_apart(tmp_path: Path, picture: Picture) -> None:
    import datasets

    parts = {}
    for number, split in enumerate(("train", "test")):
        rows = [{"image": {"bytes": picture(number), "path": "a.png"}, "caption": split}]
        parts[split] = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "d"))
    source = open_source(f"hf:{tmp_path}/d")
    assert [(record.key, record.captions) for record in source] == [
        ("train/a.png", ("train",)),
        ("test/a.png", ("test",)),
    ]
    assert source.skipped == []


def test_an_unknown_split_lists_those_that_exist(saved: Path) -> None:
    with pytest.raises(SourceError, match=r"Unknown split 'tests'. Did you mean 'test'\? Known: test, train"):
        open_source(f"hf:{saved}:tests")


def test_a_single_saved_dataset_is_opened(tmp_path: Path, picture: Picture) -> None:
    make(picture, 0, 3, id=["x", "y", "z"]).save_to_disk(str(tmp_path / "one"))
    records = list(open_source(f"hf:{tmp_path}/one"))
    assert [record.key for record in records] == ["x", "y", "z"]
    assert [read_uri(record.uri) for record in records] == [picture(i) for i in range(3)]


def test_a_folder_of_parquet_files_is_opened(tmp_path: Path, picture: Picture) -> None:
    (tmp_path / "data").mkdir()
    make(picture, 0, 3).to_parquet(str(tmp_path / "data" / "train-0.parquet"))
    make(picture, 3, 5).to_parquet(str(tmp_path / "data" / "train-1.parquet"))
    records = list(open_source(f"hf:{tmp_path}/data:train"))
    assert [record.image for record in records] == [picture(i) for i in range(5)]
    assert [record.captions for record in records] == [(f"a{i}", f"b{i}") for i in range(5)]


def test_a_folder_of_pictures_is_opened_as_imagefolder(tmp_path: Path, picture: Picture) -> None:
    for i, name in enumerate(("cat/1.png", "dog/2.png")):
        (tmp_path / "data" / name).parent.mkdir(parents=True)
        (tmp_path / "data" / name).write_bytes(picture(i))
    records = list(open_source(f"hf:{tmp_path}/data"))
    assert {record.key: record.metadata["label"] for record in records} == {
        "cat/1.png": "cat",
        "dog/2.png": "dog",
    }
    assert {read_uri(record.uri) for record in records} == {picture(0), picture(1)}


def test_rows_of_the_same_picture_are_one_record(tmp_path: Path, picture: Picture) -> None:
    import datasets

    datasets.concatenate_datasets([make(picture, 0, 3), make(picture, 1, 3)]).save_to_disk(
        str(tmp_path / "d")
    )
    source = open_source(f"hf:{tmp_path}/d")
    assert [record.captions for record in source] == [("a0", "b0"), ("a1", "b1") * 2, ("a2", "b2") * 2]


def test_rows_that_were_filtered_before_saving_keep_their_numbers(tmp_path: Path, picture: Picture) -> None:
    make(picture, 0, 6).select([5, 1, 3]).save_to_disk(str(tmp_path / "d"))
    records = list(open_source(f"hf:{tmp_path}/d"))
    assert [record.image for record in records] == [picture(i) for i in (5, 1, 3)]
    assert [record.captions[0] for record in records] == ["a5", "a1", "a3"]
    assert [read_uri(record.uri) for record in records] == [record.image for record in records]


def test_sentences_with_raw_texts_are_captions(tmp_path: Path, picture: Picture) -> None:
    import datasets

    rows = [
        {
            "image": {"bytes": picture(), "path": "a.png"},
            "sentences": [{"raw": "x", "sentid": 1}, {"raw": "y", "sentid": 2}],
        }
    ]
    datasets.Dataset.from_list(rows).cast_column("image", datasets.Image()).save_to_disk(str(tmp_path / "d"))
    (record,) = open_source(f"hf:{tmp_path}/d")
    assert (record.key, record.captions) == ("a.png", ("x", "y"))


def test_another_column_of_pictures_can_be_named(tmp_path: Path, picture: Picture) -> None:
    import datasets

    rows = [
        {
            "image": {"bytes": picture(0), "path": None},
            "mask": {"bytes": picture(1), "path": None},
            "wort": "x",
        }
    ]
    both = datasets.Dataset.from_list(rows)
    both = both.cast_column("image", datasets.Image()).cast_column("mask", datasets.Image())
    both.save_to_disk(str(tmp_path / "d"))
    (record,) = open_source(f"hf:{tmp_path}/d", image_column="mask", caption_column="wort")
    assert (record.image, record.captions) == (picture(1), ("x",))
    assert read_uri(record.uri) == picture(1)
    with pytest.raises(SourceError, match=r"Unknown column 'worte'. Did you mean 'wort'\?"):
        open_source(f"hf:{tmp_path}/d", caption_column="worte")


def test_pictures_are_read_again_without_the_other_columns(
    saved: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of thumbnails asks for one row after another."""
    import datasets

    loaded: list[str] = []
    columns: list[list[str]] = []
    load, select = datasets.load_from_disk, datasets.Dataset.select_columns
    monkeypatch.setattr(datasets, "load_from_disk", lambda path: loaded.append(path) or load(path))
    monkeypatch.setattr(
        datasets.Dataset, "select_columns", lambda self, names: columns.append(names) or select(self, names)
    )
    for row in (5, 0, 3, 0):
        assert read_uri(f"hf:{saved}:train#{row}") == picture(row)
    assert read_uri(f"hf:{saved}:test#0") == picture(6)
    assert loaded == [str(saved)]
    assert columns == [["image"], ["image"]], "once for each split"
    for fragment in ("6", "-1", "x", ""):
        with pytest.raises(SourceError, match="no row of a dataset"):
            read_uri(f"hf:{saved}:train#{fragment}")
    with pytest.raises(SourceError, match="no row of a dataset"):
        read_uri(f"hf:{saved}#0")


def test_a_picture_is_read_from_the_dataset_that_is_there_now(tmp_path: Path, picture: Picture) -> None:
    import shutil

    for number in (1, 2):
        make(picture, number, number + 1).save_to_disk(str(tmp_path / "d"))
        assert read_uri(f"hf:{tmp_path}/d:train#0") == picture(number)
        shutil.rmtree(tmp_path / "d")


def test_a_dataset_without_pictures_lists_its_columns(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_dict({"a": ["x"], "b": [1]}).save_to_disk(str(tmp_path / "d"))
    with pytest.raises(SourceError, match=r"no column of pictures\. Columns seen: 'a', 'b'"):
        open_source(f"hf:{tmp_path}/d")


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("hf:", "lacks a name"),
        ("hf:./none", "No such folder of a dataset"),
        ("hf:a/b?confg=x", "Unknown option 'confg'. Did you mean 'config'"),
    ],
)
def test_malformed_specs_are_told(spec: str, reason: str) -> None:
    with pytest.raises(SourceError, match=reason):
        open_source(spec)


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with pytest.raises(SourceError, match="cannot be") as raised:
        open_source(f"hf:{tmp_path}/d")
    assert "\n" not in str(raised.value)


def test_without_a_network_the_hub_is_told_in_one_line(tmp_path: Path) -> None:
    """In a process of its own, for the hub's library reads its setting when it is imported."""
    code = (
        "from crossmodal.sources import open_source\n"
        "from crossmodal.errors import SourceError\n"
        "try: open_source('hf:nobody/nothing:test')\n"
        "except SourceError as error: print(error)\n"
    )
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", code], env=offline, capture_output=True, text=True, check=True
    )
    assert len(run.stdout.splitlines()) == 1
    assert "hf:nobody/nothing needs the network" in run.stdout
    assert "hf:FOLDER" in run.stdout


def test_a_name_that_the_hub_does_not_know_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def missing(name: str, config: str | None) -> None:
        raise datasets.exceptions.DatasetNotFoundError(
            f"Dataset '{name}' doesn't exist on the Hub ({config})"
        )

    monkeypatch.setattr(datasets, "load_dataset", missing)
    with pytest.raises(SourceError, match=r"hf:no/such cannot be found: .*doesn't exist on the Hub \(de\)"):
        open_source("hf:no/such:test?config=de")
