import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crossmodal.errors import SourceError
from crossmodal.sources import open_source, read_uri

Picture = Callable[..., bytes]

SPLITS = {"train": 3, "restval": 2, "val": 1, "test": 2}


@pytest.fixture
def coco(tmp_path: Path, picture: Picture) -> Path:
    """A file as Karpathy's dataset_coco.json, with its pictures in ``img/val2014``."""
    entries: list[dict[str, Any]] = []
    for split, count in SPLITS.items():
        for _ in range(count):
            i = len(entries)
            name = f"COCO_val2014_{i:012}.jpg"
            (tmp_path / "img" / "val2014").mkdir(parents=True, exist_ok=True)
            (tmp_path / "img" / "val2014" / name).write_bytes(picture(i, "jpeg"))
            sentences = [
                {"tokens": ["a", "b"], "raw": f'A "b", {i} {j}.', "imgid": i, "sentid": 5 * i + j}
                for j in range(5)
            ]
            entries.append(
                {
                    "filepath": "val2014",
                    "sentids": [s["sentid"] for s in sentences],
                    "filename": name,
                    "imgid": i,
                    "split": split,
                    "sentences": sentences,
                    "cocoid": 1000 + i,
                }
            )
    path = tmp_path / "dataset_coco.json"
    path.write_text(json.dumps({"images": entries, "dataset": "coco"}))
    return path


@pytest.mark.parametrize(
    ("split", "numbers"),
    [
        ("train", [0, 1, 2]),
        ("train+restval", [0, 1, 2, 3, 4]),
        ("restval", [3, 4]),
        ("test", [6, 7]),
        (None, range(8)),
    ],
)
def test_a_split_holds_exactly_its_pictures(coco: Path, split: str | None, numbers: list[int]) -> None:
    images = coco.parent / "img"
    source = open_source(f"karpathy:{coco}?images={images}" + (f"&split={split}" if split else ""))
    records = list(source)
    assert [record.metadata["imgid"] for record in records] == list(numbers)
    assert source.count == len(records)
    assert list(source) == records
    entries = json.loads(coco.read_text())["images"]
    for record in records:
        entry = entries[record.metadata["imgid"]]
        assert record.key == entry["filename"]
        assert record.captions == tuple(sentence["raw"] for sentence in entry["sentences"])
        assert record.metadata == {
            "imgid": entry["imgid"],
            "cocoid": entry["cocoid"],
            "split": entry["split"],
        }
        assert record.uri == str(images / "val2014" / record.key)
        assert read_uri(record.uri) == (images / "val2014" / record.key).read_bytes()


def test_the_spec_is_absolute_and_opens_again(coco: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(coco.parent)
    source = open_source("karpathy:dataset_coco.json?split=test&images=img")
    assert source.spec == f"karpathy:{coco}?images={coco.parent / 'img'}&split=test"
    assert list(open_source(source.spec)) == list(source)


def test_signs_of_the_spec_in_a_folder_name_survive(coco: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = (coco.parent / "img").rename(coco.parent / "R&D 100% a+b")
    source = open_source(f"karpathy:{coco}?images={coco.parent}/R%26D 100% a+b&split=test")
    assert {record.uri for record in source} == {str(path) for path in images.rglob("*00[67].jpg")}
    assert list(open_source(source.spec)) == list(source)


def test_pictures_may_lie_all_in_one_folder(coco: Path) -> None:
    records = list(open_source(f"karpathy:{coco}?images={coco.parent / 'img' / 'val2014'}&split=val"))
    assert [record.image for record in records] == [
        coco.parent / "img" / "val2014" / "COCO_val2014_000000000005.jpg"
    ]


def test_flickr_files_without_a_filepath_are_read(tmp_path: Path, picture: Picture) -> None:
    (tmp_path / "1.jpg").write_bytes(picture())
    entry = {
        "sentids": [0],
        "imgid": 0,
        "sentences": [{"raw": "x", "tokens": []}],
        "split": "test",
        "filename": "1.jpg",
    }
    (tmp_path / "dataset_flickr30k.json").write_text(json.dumps({"images": [entry], "dataset": "flickr30k"}))
    (record,) = open_source(f"karpathy:{tmp_path}/dataset_flickr30k.json?images={tmp_path}&split=test")
    assert (record.key, record.captions, record.metadata) == ("1.jpg", ("x",), {"imgid": 0, "split": "test"})


def test_an_unknown_split_lists_those_that_exist(coco: Path) -> None:
    with pytest.raises(
        SourceError, match=r"Unknown split 'tset'. Did you mean 'test'\? Known: restval, test, train, val"
    ):
        open_source(f"karpathy:{coco}?images={coco.parent}/img&split=train+tset")


def test_the_wrong_folder_of_pictures_is_told_with_counts(coco: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(
        SourceError, match=rf"none of the 3 pictures .*{tmp_path}/other/val2014/COCO_val2014_0+\.jpg"
    ):
        open_source(f"karpathy:{coco}?images={tmp_path}/other&split=train")
    with pytest.raises(SourceError, match=r"No such folder of pictures: .*imgs\. Did you mean 'img'"):
        open_source(f"karpathy:{coco}?images={tmp_path}/imgs&split=train")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is not JSON"),
        ("[]", "no Karpathy split file"),
        ('{"images": []}', "no Karpathy split file"),
        ('{"images": [{"file_name": "coco.jpg"}], "annotations": []}', "no Karpathy split file"),
        ("", "is not JSON"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(SourceError, match=reason):
        open_source(f"karpathy:{tmp_path}/x.json?images={tmp_path}")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("", "expected karpathy:FILE"),
        ("?split=test", "expected karpathy:FILE"),
        ("?image=x", r"Unknown option 'image'. Did you mean 'images'\? Known: images, split"),
        ("?images=", "expected images=VALUE once"),
        ("?images=x&images=y", "expected images=VALUE once"),
    ],
)
def test_malformed_options_are_told(coco: Path, options: str, reason: str) -> None:
    with pytest.raises(SourceError, match=reason):
        open_source(f"karpathy:{coco}{options}")
