import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from crossmodal.errors import SourceError
from crossmodal.sources import SCHEMES, Source, is_there, open_source, read_uri

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


@pytest.mark.parametrize("spec", ["sample", "sample:test"])
def test_a_folder_that_the_sample_is_read_instead_of_is_told(
    here: Path, picture: Picture, caplog: pytest.LogCaptureFixture, spec: str
) -> None:
    with caplog.at_level(logging.WARNING, "crossmodal"):
        assert open_source(spec).spec == spec
        assert caplog.messages == []
        (here / spec).mkdir()
        (here / spec / "a.png").write_bytes(picture())
        assert open_source(spec).spec == spec
        (message,) = caplog.messages
        assert "bundled sample" in message
        assert f"'./{spec}'" in message
        assert open_source(f"./{spec}").spec == str(here / spec)
        assert len(caplog.messages) == 1


def test_a_home_that_nobody_has_is_a_name_like_others(here: Path) -> None:
    with pytest.raises(SourceError, match=r"No such file or folder: .*/~nobody-of-this-name"):
        open_source("~nobody-of-this-name/photos")


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


@pytest.mark.parametrize(
    ("uri", "there"),
    [
        ("{here}/photos/a.png", True),
        ("photos/a.png", True),
        ("{here}/photos/b.png", False),
        ("{here}/gone/a.png", False),
        ("{here}/x.tar#a.png", True),
        ("{here}/x.TAR.gz#dir/a#b.png", True),
        ("{here}/y.tar#a.png", False),
        ("{here}/x.parquet#0", True),
        ("{here}/x.parquet#0:thumb", True),
        ("{here}/y.parquet#0", False),
        ("{here}/a.tar#b/c#.png", True),
        ("{here}/photos/a.png#0", False),
        ("y" * 5000, False),
        ("/\ud800", False),
        ("", None),
        ("a\0b", None),
        ("sample:anything", None),
        ("hf:{here}/photos:train#0", None),
        ("s3://bucket/a.png", None),
        ("https://example.org/x.tar#a.png", None),
    ],
)
def test_whether_a_picture_is_still_there_is_seen_without_opening_anything(
    here: Path, uri: str, there: bool | None
) -> None:
    for name in ("x.tar", "x.TAR.gz", "x.parquet"):
        (here / name).write_text("neither a tar nor a Parquet file")
    (here / "a.tar#b").mkdir()
    (here / "a.tar#b" / "c#.png").write_text("a name that looks like a member")
    assert is_there(uri.replace("{here}", str(here))) is there


def test_every_record_of_a_source_is_there_until_its_file_goes(here: Path) -> None:
    (record,) = open_source("photos")
    assert is_there(record.uri) is True
    (here / "photos" / "a.png").unlink()
    assert is_there(record.uri) is False


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
