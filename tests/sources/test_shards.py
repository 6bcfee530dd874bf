import io
import json
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from crossmodal.errors import SourceError
from crossmodal.sources import open_source, read_uri, shards

Picture = Callable[..., bytes]
Members = Iterable[tuple[str, bytes]]


def pack(path: Path, members: Members, mode: str = "w") -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def samples(picture: Picture, start: int, stop: int) -> list[tuple[str, bytes]]:
    members = []
    for i in range(start, stop):
        members += [(f"{i:06}.jpg", picture(i, "jpeg")), (f"{i:06}.txt", f"caption {i}".encode())]
    return members


def test_members_of_a_sample_become_one_record(tmp_path: Path, picture: Picture) -> None:
    facts = {"caption": "ein Bär", "width": 640, "ok": True, "tags": ["a", "b"], "nan": float("nan")}
    path = pack(
        tmp_path / "x.tar",
        [
            ("ü/0.png", picture(0)),
            ("ü/0.txt", b'says "hi",\ntwice\n'),
            ("ü/0.json", json.dumps(facts).encode()),
            ("ü/0.cls", b"7"),
            ("ü/0.npy", b"\x93NUMPY not looked at"),
            ("1.WEBP", picture(1, "webp")),
            ("1.json", b'{"captions": ["one", "two"], "key": "k1"}'),
            ("2.jpg", picture(2, "jpeg")),
        ],
    )
    source = open_source(path)
    for _ in range(2):
        first, second, third = source
        assert (first.key, first.captions) == ("ü/0", ('says "hi",\ntwice', "ein Bär"))
        assert first.metadata == {"width": 640, "ok": True, "tags": '["a", "b"]', "nan": None, "cls": 7}
        assert (first.image, first.uri) == (picture(0), f"{path}#ü/0.png")
        assert (second.key, second.captions, second.metadata) == ("1", ("one", "two"), {"key": "k1"})
        assert (third.key, third.captions, third.image) == ("2", (), picture(2, "jpeg"))
        assert source.skipped == []
    assert [read_uri(record.uri) for record in source] == [picture(0), picture(1, "webp"), picture(2, "jpeg")]
    assert source.spec == str(path)


def test_the_same_caption_in_text_and_json_comes_once(tmp_path: Path, picture: Picture) -> None:
    path = pack(
        tmp_path / "x.tar", [("0.jpg", picture()), ("0.txt", b"red"), ("0.json", b'{"caption": "red"}')]
    )
    assert [record.captions for record in open_source(path)] == [("red",)]


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"])
def test_keys_and_bytes_agree_with_webdataset(tmp_path: Path, picture: Picture, suffix: str) -> None:
    import webdataset

    members = [
        ("./a/0.jpg", picture(0)),
        ("./a/0.txt", b"x"),
        ("__internal__/z.jpg", picture(9)),
        ("b.seg.png", picture(1)),
        ("b.JPG", picture(2)),
        ("nosuffix", b""),
        (".hidden.jpg", picture(3)),
        ("c.d/e.png", picture(4)),
    ]
    path = pack(
        tmp_path / f"x.{suffix}",
        members,
        {"tar": "w"}.get(suffix, "w:" + {"tgz": "gz"}.get(suffix, suffix[4:])),
    )
    theirs = {}
    with path.open("rb") as file:
        files = webdataset.tariterators.tar_file_iterator(file)
        for sample in webdataset.tariterators.group_by_keys({**f, "__url__": "x"} for f in files):
            theirs[sample["__key__"].removeprefix("./")] = sample.get("jpg") or sample.get("png")
    ours = {record.key: record.image for record in open_source(path)}
    assert ours == {key: image for key, image in theirs.items() if image is not None}
    assert set(ours) == {"a/0", "b", "c.d/e"}
    for record in open_source(path):
        assert read_uri(record.uri) == record.image


def test_patterns_stand_for_shards_in_order(
    tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(12):
        pack(tmp_path / "shards" / f"{i:03}.tar", samples(picture, 2 * i, 2 * i + 2))
    expected = [f"{i:06}" for i in range(24)]
    monkeypatch.chdir(tmp_path)
    for spec in (
        "shards/{000..011}.tar",
        f"{tmp_path}/shards/*.tar",
        "shards/0[01]?.tar",
        "shards/{00*,01*}.tar",
    ):
        records = list(open_source(spec))
        assert [record.key for record in records] == expected, spec
        assert records[5].captions == ("caption 5",)
    assert [record.key for record in open_source("shards/{003,001}.tar")] == [
        "000006",
        "000007",
        "000002",
        "000003",
    ]
    assert open_source("shards/{000..011}.tar").spec == f"{tmp_path}/shards/{{000..011}}.tar"


def test_missing_shards_are_named(tmp_path: Path, picture: Picture) -> None:
    for i in (0, 2, 3):
        pack(tmp_path / f"{i}.tar", samples(picture, i, i + 1))
    with pytest.raises(
        SourceError, match=rf"2 of 5 shards are missing: {tmp_path}/1\.tar, {tmp_path}/4\.tar"
    ):
        open_source(f"{tmp_path}/{{0..4}}.tar")


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("*.tar", "no file matches"),
        ("{0..3.tar", "braces do not match"),
        ("{0..199999}.tar", "more than 100000 shards"),
        ("no.tar", "No such shard"),
        ("*.png", r"stands for tar files .*, not .*a\.png"),
    ],
)
def test_patterns_that_lead_nowhere_are_told(
    tmp_path: Path, picture: Picture, spec: str, reason: str
) -> None:
    (tmp_path / "a.png").write_bytes(picture())
    with pytest.raises(SourceError, match=reason):
        open_source(f"{tmp_path}/{spec}")


def test_a_key_that_comes_again_is_skipped_and_told(tmp_path: Path, picture: Picture) -> None:
    pack(tmp_path / "0.tar", [*samples(picture, 0, 2), ("000000.jpg", picture(9))])
    pack(tmp_path / "1.tar", samples(picture, 1, 3))
    source = open_source(f"{tmp_path}/*.tar")
    assert [record.key for record in source] == ["000000", "000001", "000002"]
    assert [key for key, _ in source.skipped] == ["000000", "000001"]
    assert f"{tmp_path}/1.tar#000001.jpg" in source.skipped[1][1]


def test_samples_and_members_that_cannot_be_used_are_told(tmp_path: Path, picture: Picture) -> None:
    path = pack(
        tmp_path / "x.tar",
        [
            ("0.txt", b"no picture"),
            ("2.jpg", picture(2)),
            ("2.jpg", picture(3)),
            ("v.0.jpg", picture(4)),
            ("v.1.jpg", picture(5)),
        ],
    )
    source = open_source(path)
    assert [(record.key, record.captions) for record in source] == [("2", ()), ("v", ())]
    reasons = dict(source.skipped)
    assert reasons["0"] == "no picture in its sample, only txt"
    assert "a second .jpg" in reasons["2.jpg"]
    assert "a second picture" in reasons["v.1.jpg"]
    assert len(reasons) == 3


def test_a_sample_whose_captions_cannot_be_read_is_told_and_left_out(
    tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record without them would take the captions away that a collection read in better days."""
    monkeypatch.setattr(shards, "LARGEST_MEMBER", 10_000)
    path = pack(
        tmp_path / "x.tar",
        [
            ("0.jpg", picture(0)),
            ("0.txt", b"fine"),
            ("1.jpg", picture(1)),
            ("1.txt", b"caf\xe9"),
            ("2.json", b"{"),
            ("2.jpg", picture(2)),
            ("3.jpg", picture(3)),
            ("3.txt", b"x" * 10_001),
        ],
    )
    source = open_source(path)
    assert [(record.key, record.captions) for record in source] == [("0", ("fine",))]
    reasons = dict(source.skipped)
    assert "1.txt: not UTF-8 text: byte 0xe9 at position 3" in reasons["1"]
    assert "2.json: not JSON" in reasons["2"]
    assert "3.txt: too large: 10001 bytes" in reasons["3"]
    assert len(source.skipped) == 3


def test_a_shard_cut_anywhere_gives_what_it_holds_and_says_so(tmp_path: Path, picture: Picture) -> None:
    whole = pack(tmp_path / "whole.tar", samples(picture, 0, 3)).read_bytes()
    complete = [(record.key, record.image, record.captions) for record in open_source(tmp_path / "whole.tar")]
    with tarfile.open(tmp_path / "whole.tar") as tar:
        ends = [member.offset_data + member.size for member in tar if member.name.endswith(".txt")]
    cut = tmp_path / "cut.tar"
    for length in range(0, ends[-1] + 512, 128):
        cut.write_bytes(whole[:length])
        source = open_source(cut)
        found = []
        try:
            for record in source:
                found.append((record.key, record.image, record.captions))
        except SourceError:
            assert not found
        assert str(cut) in dict(source.skipped), f"cut at {length} of {len(whole)}"
        there = sum(end <= length for end in ends)
        if len(found) == there + 1:
            # Cut right between a picture and its caption, nothing shows that a caption was meant to follow.
            assert found.pop() == (*complete[there][:2], ())
        assert found == complete[:there], f"cut at {length} of {len(whole)}"


@pytest.mark.parametrize("suffix", ["tar.gz", "tar.xz"])
def test_a_compressed_shard_that_is_cut_says_so(tmp_path: Path, picture: Picture, suffix: str) -> None:
    import random

    noise = random.Random(0)
    members = [(f"{i}.jpg", noise.randbytes(20_000)) for i in range(10)]
    path = pack(tmp_path / f"x.{suffix}", members, f"w:{suffix[4:]}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = open_source(path)
    found = [record.image for record in source]
    assert found == [content for _, content in members][: len(found)]
    assert 2 <= len(found) <= 6
    assert str(path) in dict(source.skipped)


def test_a_damaged_header_is_told_and_the_other_shards_are_read(tmp_path: Path, picture: Picture) -> None:
    path = pack(tmp_path / "0.tar", samples(picture, 0, 3))
    with tarfile.open(path) as tar:
        at = tar.getmember("000001.txt").offset
    data = bytearray(path.read_bytes())
    data[at : at + 100] = b"\xff" * 100
    path.write_bytes(data)
    pack(tmp_path / "1.tar", samples(picture, 3, 5))
    source = open_source(f"{tmp_path}/*.tar")
    assert [record.key for record in source] == ["000000", "000003", "000004"]
    assert [key for key, _ in source.skipped] == [str(path), "000001"]


def test_tar_files_joined_into_one_are_told(tmp_path: Path, picture: Picture) -> None:
    first = pack(tmp_path / "0.tar", samples(picture, 0, 1)).read_bytes()
    second = pack(tmp_path / "1.tar", samples(picture, 1, 2)).read_bytes()
    (tmp_path / "joined.tar").write_bytes(first + second)
    source = open_source(tmp_path / "joined.tar")
    assert [record.key for record in source] == ["000000"]
    assert "more follows after its end mark" in dict(source.skipped)[str(tmp_path / "joined.tar")]


def test_a_tar_file_that_is_none_or_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"not a tar file" * 100)
    pack(tmp_path / "y.tar", [("0.txt", b"x")])
    for name in ("x.tar", "y.tar"):
        with pytest.raises(SourceError, match="no sample with a picture") as raised:
            list(open_source(tmp_path / name))
        assert "\n" not in str(raised.value)


def test_columns_cannot_be_named_for_shards(tmp_path: Path, picture: Picture) -> None:
    pack(tmp_path / "0.tar", samples(picture, 0, 1))
    with pytest.raises(SourceError, match="no column can be named"):
        open_source(tmp_path / "0.tar", image_column="jpg")


def test_only_one_sample_is_in_memory_at_a_time(tmp_path: Path) -> None:
    import tracemalloc

    pack(tmp_path / "0.tar", [(f"{i}.jpg", bytes([i]) * 2**20) for i in range(32)])
    source = open_source(tmp_path / "0.tar")
    tracemalloc.start()
    try:
        assert sum(1 for _ in source) == 32
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 2**20


def test_members_are_read_again_after_their_shard_changed(tmp_path: Path, picture: Picture) -> None:
    path = pack(tmp_path / "0.tar", [("a.png", picture(0)), ("b.png", picture(1))])
    assert read_uri(f"{path}#b.png") == picture(1)
    pack(path, [("x.png", picture(3) * 100), ("b.png", picture(2))])
    assert read_uri(f"{path}#b.png") == picture(2)
    with pytest.raises(SourceError, match=r"holds no member 'a\.png'"):
        read_uri(f"{path}#a.png")
    with pytest.raises(SourceError, match="No such shard"):
        read_uri(f"{tmp_path}/1.tar#a.png")
