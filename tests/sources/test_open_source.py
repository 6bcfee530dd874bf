import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from crossmodal.errors import SourceError
from crossmodal.sources import SCHEMES, Source, open_source, read_uri

Picture = Callable[..., bytes]


@pytest.fixture
def here(tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with ``photos/a.png``."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(picture())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("spec", ["photos", "./photos", Path("photos")])
def test_a_folder_is_opened_by_text_or_path(here: Path, spec: str | Path) -> None:
    source = open_source(spec)
    assert isinstance(source, Source)
    assert source.spec == str(here / "photos")
    assert [record.key for record in source] == ["a.png"]


def test_the_home_folder_is_known(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here))
    assert open_source("~/photos").spec == str(here / "photos")


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("photo", "No such file or folder: .*/photo. Did you mean 'photos'"),
        ("photos/b/c", "No such file or folder: .*the last folder that exists is .*/photos"),
        ("pairs.csv", r"No such file or folder: .*pairs\.csv"),
        ("", "names no source"),
        ("x" * 5000, "No such file or folder"),
        ("a\0b", "names no source"),
        ("photos/a.png", r"single picture. Give its folder, .*photos$"),
        ("x.json", r"karpathy:.*x\.json\?images=DIR&split=test"),
        ("x.xlsx", r"Unknown kind of file '\.xlsx'.* Known: .*\.csv, \.jsonl, \.parquet, .*\.tar"),
        ("noname", "Unknown kind of file 'noname'"),
        (
            "karpaty:x.json",
            r"Unknown kind of source 'karpaty:'. Did you mean 'karpathy:'\? Known: hf:, karpathy:, sample:",
        ),
        ("https://example.org/a.zip", "Unknown kind of source 'https:'"),
        ("s3://bucket/x", "Unknown kind of source 's3:'"),
    ],
)
def test_what_cannot_be_opened_is_told_in_one_line(here: Path, spec: str, reason: str) -> None:
    for name in ("x.json", "x.xlsx", "noname"):
        (here / name).write_text("x")
    with pytest.raises(SourceError, match=reason) as raised:
        open_source(spec)
    assert "\n" not in str(raised.value)


def test_a_colon_in_the_name_of_a_folder_that_exists_is_no_scheme(here: Path, picture: Picture) -> None:
    (here / "set:one").mkdir()
    (here / "set:one" / "a.png").write_bytes(picture())
    assert open_source("set:one").spec == str(here / "set:one")


def test_a_path_object_is_never_taken_for_a_scheme(here: Path, picture: Picture) -> None:
    (here / "sample").mkdir()
    (here / "sample" / "a.png").write_bytes(picture())
    assert open_source(Path("sample")).spec == str(here / "sample")


def test_skipped_starts_empty_with_each_iteration(here: Path) -> None:
    (here / "photos" / "lonely.txt").write_text("x")
    source = open_source("photos")
    assert source.skipped == []
    first = iter(source)
    assert source.skipped == []
    list(first)
    told = list(source.skipped)
    assert len(told) == 1
    list(source)
    assert source.skipped == told


def test_every_scheme_has_an_opener() -> None:
    assert set(SCHEMES) == {"hf", "karpathy", "sample"}


@pytest.mark.parametrize(
    "uri",
    ["", "no.png", "photos", "x.tar#a.png", "x.parquet#0", "a\0b", "hf:none", "x#1", "y" * 5000, "\ud800"],
)
def test_a_uri_that_leads_nowhere_is_told(here: Path, uri: str) -> None:
    with pytest.raises(SourceError) as raised:
        read_uri(uri)
    assert "\n" not in str(raised.value)


def test_a_file_whose_name_looks_like_a_member_is_read_as_a_file(here: Path, picture: Picture) -> None:
    for number, name in enumerate(("x.tar#a.png", "c#.png")):
        (here / name).write_bytes(picture(number))
        assert read_uri(name) == picture(number)


def test_importing_sources_loads_no_heavy_library() -> None:
    code = (
        "import sys, crossmodal.sources; "
        "print([m for m in ('torch', 'datasets', 'pyarrow', 'webdataset', 'pandas') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
