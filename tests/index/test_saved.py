"""An index on disk: what was saved comes back, and nothing else is ever taken for it."""

import errno
import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from crossmodal.errors import IndexingError, StorageError
from crossmodal.index import FaissIndex
from crossmodal.index import saved as saved_index
from crossmodal.index.saved import read_rows

STAMP = {"store": "17", "encoder": 'sha256:ab\u00e9 "quoted" {brace}'}
Make = Callable[..., np.ndarray]


@pytest.fixture(params=["mapped", "read"], autouse=True)
def way_of_reading(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Try both what Windows needs and what all others do."""
    monkeypatch.setattr(saved_index, "_MAPPED", request.param == "mapped")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A small index on disk: rows 5, 0 and 9, some of it written over."""
    index = FaissIndex(4, gpus="none")
    index.add([5, 7, 0, 9], np.eye(4))
    index.remove([7])
    index.add([9], np.array([[0.5, 0.5, -0.5, 0.5]]))
    path = tmp_path / "index.safetensors"
    index.save(path, STAMP)
    return path


def test_what_was_saved_comes_back(saved: Path) -> None:
    index, stamp = FaissIndex.load(saved, gpus="none")
    assert stamp == STAMP
    assert index.dim == 4
    assert index.ids().tolist() == [0, 5, 9]
    scores, ids = index.search(np.array([[0.5, 0.5, -0.5, 0.5]]), 3)
    assert ids.tolist() == [[9, 5, 0]]
    assert scores.tolist() == [[1.0, 0.5, -0.5]]


def test_an_empty_index_and_an_empty_stamp_come_back(tmp_path: Path) -> None:
    FaissIndex(7, gpus="none").save(tmp_path / "empty", {})
    index, stamp = FaissIndex.load(tmp_path / "empty", gpus="none")
    assert (len(index), index.dim, stamp) == (0, 7, {})


def test_a_loaded_index_changes_in_memory_and_leaves_its_file_alone(saved: Path) -> None:
    before = saved.read_bytes()
    index, _ = FaissIndex.load(saved, gpus="none")
    index.add([5, 100], np.array([[0, 0, 0, 1.0], [0, 0, 1, 0]]))
    index.remove([0])
    assert index.search(np.eye(4), 1)[1].ravel().tolist() == [9, 9, 100, 5]
    assert saved.read_bytes() == before
    index.save(saved, {"store": "18"})
    again, stamp = FaissIndex.load(saved, gpus="none")
    assert (again.ids().tolist(), stamp) == ([5, 9, 100], {"store": "18"})


def test_an_index_goes_on_searching_the_rows_it_loaded_when_its_file_is_replaced(
    saved: Path, unit_vectors: Make
) -> None:
    index, _ = FaissIndex.load(saved, gpus="none")
    other = FaissIndex(4, gpus="none")
    other.add(np.arange(900), unit_vectors(np.random.default_rng(0), 900, 4))
    other.save(saved, {})
    assert index.search(np.eye(4)[:1], 1)[1].tolist() == [[5]]


def test_the_file_is_plain_safetensors(saved: Path) -> None:
    with safe_open(saved, framework="numpy") as file:
        assert json.loads(file.metadata()["stamp"]) == STAMP
        by_id = dict(zip(file.get_tensor("ids").tolist(), file.get_tensor("vectors").tolist(), strict=True))
    assert by_id == {5: [1, 0, 0, 0], 0: [0, 0, 1, 0], 9: [0.5, 0.5, -0.5, 0.5]}


def test_a_file_cut_off_anywhere_is_refused(saved: Path) -> None:
    whole = saved.read_bytes()
    for length in range(len(whole)):
        saved.write_bytes(whole[:length])
        with pytest.raises(IndexingError, match="build the index again"):
            read_rows(saved)


def test_a_changed_byte_anywhere_is_refused(saved: Path) -> None:
    whole = saved.read_bytes()
    for place in range(len(whole)):
        for flip in (1, 0x80, 0xFF):
            saved.write_bytes(whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :])
            with pytest.raises(IndexingError, match="build the index again"):
                read_rows(saved)


def test_a_file_half_of_zeros_is_refused(saved: Path) -> None:
    whole = saved.read_bytes()
    for start in range(0, len(whole), 16):
        saved.write_bytes(whole[:start] + bytes(len(whole) - start))
        with pytest.raises(IndexingError, match="build the index again"):
            read_rows(saved)


def test_added_bytes_are_refused(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes() + bytes(4))
    with pytest.raises(IndexingError, match="torn or damaged"):
        read_rows(saved)


@pytest.mark.parametrize("content", [b"", b"\xff" * 500, bytes(500), b"PK\x03\x04" * 100, b"{}" * 400])
def test_foreign_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "foreign").write_bytes(content)
    with pytest.raises(IndexingError, match="build the index again"):
        FaissIndex.load(tmp_path / "foreign")


def test_another_safetensors_file_is_refused(tmp_path: Path) -> None:
    save_file({"ids": np.arange(9), "vectors": np.eye(9, dtype=np.float32)}, tmp_path / "other")
    with pytest.raises(IndexingError, match="is not an index file of crossmodal"):
        FaissIndex.load(tmp_path / "other")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"shape":[3,4]', b'"shape":[9,4]'),
        (b'"shape":[3,4]', b'"shape":[3,0]'),
        (b'"shape":[3,4]', b'"shape":"34" '),
        (b'"I64"', b'"I32"'),
        (b'"vectors":', b'"vektors":'),
        (b"index-1", b"index-2"),
        (b'\\"store\\"', b'\\"store   '),
    ],
)
def test_a_header_of_another_make_is_refused_even_when_its_checksum_fits(
    saved: Path, old: bytes, new: bytes
) -> None:
    body = saved.read_bytes()[:-4]
    assert old in body
    body = body.replace(old, new)
    saved.write_bytes(body + zlib.crc32(body).to_bytes(4, "little"))
    with pytest.raises(IndexingError, match="torn or damaged"):
        read_rows(saved)


def test_no_file_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(IndexingError, match=r"There is no index file at .*nowhere; build the index again"):
        FaissIndex.load(tmp_path / "nowhere")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="Cannot read the index"):
        FaissIndex.load(tmp_path)


@pytest.mark.parametrize("trouble", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_save_that_fails_leaves_the_old_file_and_nothing_beside_it(
    saved: Path, monkeypatch: pytest.MonkeyPatch, trouble: BaseException
) -> None:
    before = saved.read_bytes()

    def fail(_: int) -> None:
        raise trouble

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises((StorageError, KeyboardInterrupt)) as raised:
        FaissIndex(4, gpus="none").save(saved, {})
    if isinstance(trouble, OSError):
        assert "Cannot write the index to" in str(raised.value)
        assert "No space left on device" in str(raised.value)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_a_folder_that_is_not_there_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        FaissIndex(4, gpus="none").save(tmp_path / "no" / "index", {})


def test_drafts_of_killed_saves_go_at_the_next_save_and_young_ones_stay(saved: Path) -> None:
    old, young = (saved.with_name(f".{saved.name}.{n}.part") for n in ("1-1", "2-2"))
    for draft in (old, young):
        draft.write_bytes(b"half")
    os.utime(old, (0, 0))
    FaissIndex(4, gpus="none").save(saved, {})
    assert sorted(saved.parent.iterdir()) == sorted([saved, young])
