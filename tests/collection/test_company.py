"""A collection in company: threads that search while others write, and collections that come and go."""

import datetime
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from crossmodal import Collection, Record
from crossmodal.collection.schema import embedding_matrix
from crossmodal.collection.snapshot import WIDENING
from crossmodal.errors import CollectionError


@pytest.fixture
def collection(tmp_path, toy_encoder, picture_folder) -> Collection:
    collection = Collection.create(tmp_path / "c", toy_encoder)
    collection.add(picture_folder)
    return collection


def numbered(picture_folder, numbers, colour="red") -> list[Record]:
    return [
        Record(key=f"n{i}", image=picture_folder / f"{colour}.png", captions=(f"number {i}",))
        for i in numbers
    ]


def test_threads_search_while_others_add_and_remove_and_every_answer_is_of_one_version(
    collection, picture_folder, toy_encoder, monkeypatch
):
    """A slow encoder lets other threads bring the index forward between a query's vector and its search."""
    quick = toy_encoder.embed_texts

    def slow(texts):
        time.sleep(0.002 * (len(texts[0]) % 5))
        return quick(texts)

    monkeypatch.setattr(toy_encoder, "embed_texts", slow)
    over = threading.Event()

    def write():
        for i in range(12):
            collection.add(numbered(picture_folder, [i]))
            if i % 2:
                collection.remove([f"n{i}"])
        over.set()

    def read(thread):
        answers = 0
        while not over.is_set() or answers < 5:
            hits = collection.search("a red picture" + " x" * thread, k=100)
            keys = [hit.key for hit in hits]
            assert len(keys) == len(set(keys))
            assert {"red.png", "blue.png"} <= set(keys)
            answers += 1
        return answers

    with ThreadPoolExecutor(5) as pool:
        writing = pool.submit(write)
        answers = [reading.result() for reading in [pool.submit(read, i) for i in range(4)]]
        writing.result()
    assert min(answers) >= 5
    assert {h.key for h in collection.search("red", k=100) if h.key.startswith("n")} == {
        f"n{i}" for i in range(0, 12, 2)
    }


def test_threads_that_add_wait_for_each_other(collection, picture_folder):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: collection.add(numbered(picture_folder, [i])), range(8)))
    assert len(collection) == 16
    assert collection.verify().ok


def test_a_collection_that_was_replaced_is_not_mixed_up_with_the_old_one(
    tmp_path, collection, picture_folder, toy_encoder
):
    import shutil

    reader = Collection.open(collection.path, toy_encoder)
    reader.search("red")
    shutil.rmtree(collection.path)
    other = Collection.create(collection.path, type(toy_encoder)("other"))
    other.add(picture_folder)
    assert other._current().version == reader._store.version
    for ask in (lambda: reader.search("red"), lambda: reader.add(picture_folder), lambda: len(reader)):
        with pytest.raises(CollectionError, match="replaced"):
            ask()
    shutil.rmtree(collection.path)
    with pytest.raises(CollectionError, match="does not exist"):
        reader.search("red")


def test_of_two_that_create_at_once_one_is_refused_and_takes_nothing_along(
    tmp_path, toy_encoder, monkeypatch
):
    """The second asks before the first has committed, and finds out only when it holds the pen."""
    path = tmp_path / "c"
    made = []
    together = threading.Barrier(4)

    def create():
        together.wait()
        try:
            made.append(Collection.create(path, toy_encoder))
        except CollectionError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(4) as pool:
        refusals = sorted(pool.map(lambda _: create(), range(4)))
    assert len(made) == 1
    assert refusals[0] == ""
    assert all("already" in refusal for refusal in refusals[1:])
    assert len(Collection.open(path)) == 0


def test_only_an_empty_collection_is_discarded_and_only_its_own_files(tmp_path, collection, toy_encoder):
    assert not collection.discard_if_empty()
    assert len(collection) == 8
    for kept in (False, True):
        empty = Collection.create(tmp_path / "empty", toy_encoder)
        if kept:
            (empty.path / "notes.txt").write_text("mine")
        assert empty.discard_if_empty()
        assert (tmp_path / "empty").exists() == kept
    assert [p.name for p in (tmp_path / "empty").iterdir()] == ["notes.txt"]


def test_a_folder_with_things_of_others_is_not_taken_for_a_fresh_one(tmp_path, toy_encoder):
    (tmp_path / "site" / "index").mkdir(parents=True)
    (tmp_path / "site" / "index" / "page.html").write_text("precious")
    with pytest.raises(CollectionError, match="no collection"):
        Collection.create(tmp_path / "site", toy_encoder)
    assert (tmp_path / "site" / "index" / "page.html").read_text() == "precious"


def test_the_version_a_reader_holds_outlives_a_clean_up(collection, picture_folder, monkeypatch):
    """However long ago the newest version was made, it was current until the next one came."""
    store = collection._current()
    held = store.version
    expected = {h.key for h in collection.search("red", k=100)}
    monkeypatch.setattr("crossmodal.collection.store.KEEP_VERSIONS", datetime.timedelta(seconds=0.5))
    monkeypatch.setattr("crossmodal.collection.store.FRAGMENTS_TO_COMPACT", 1)
    time.sleep(1)
    collection.add(numbered(picture_folder, range(3)))
    assert collection._current().version > held
    keys = {key for table in store.iterate() for key in table["key"].to_pylist()}
    assert keys == expected


@pytest.mark.parametrize("steps", [1, 2])
def test_widening_that_was_interrupted_is_hidden_from_readers_and_finished_by_the_next_writer(
    collection, picture_folder, steps
):
    def add(value):
        picture = picture_folder / "red.png"
        return collection.add([Record(key=f"k{value}", image=picture, metadata={"n": value})])

    add(3)
    dataset = collection._current()._dataset
    dataset.add_columns({f"{WIDENING}n": "CAST(`n` AS DOUBLE)"})
    if steps == 2:
        dataset.drop_columns(["n"])
    reader = Collection.open(collection.path, collection.encoder)
    assert not [name for name in reader.info().columns if name.startswith("_")]
    assert all(not name.startswith("_") for record in reader.get(["k3"]) for name in record.metadata)
    assert add(0.5).added == 1
    assert {r.key: r.metadata for r in collection.get(["k3", "k0.5"])} == {"k3": {"n": 3}, "k0.5": {"n": 0.5}}
    assert collection._current().columns["n"] == "double"


def test_numbers_keep_every_digit_whatever_they_meet(collection, picture_folder):
    picture = picture_folder / "red.png"
    large = 2**53 + 1
    values = [large, 0.5, 7, np.int64(9), 10**30]
    for round_of in (values, list(reversed(values))):
        report = collection.add([Record(key=f"k{v}", image=picture, metadata={"n": v}) for v in round_of])
        assert report.added + report.unchanged == len(values)
    [record] = collection.get([f"k{large}"])
    assert record.metadata == {"n": str(large)}


def test_numbers_of_numpy_make_columns_of_numbers(collection, picture_folder):
    metadata = {"year": np.int64(1999), "share": np.float32(0.5), "open": np.bool_(True)}
    collection.add([Record(key="k", image=picture_folder / "red.png", metadata=metadata)])
    assert [h.key for h in collection.search("red", where="year < 2000 AND share = 0.5 AND `open`")] == ["k"]


def test_names_that_share_a_column_are_told_and_the_first_is_kept(collection, picture_folder, caplog):
    metadata = {"Author": "x", "author": "y", "a.b": 1, "a_b": 2}
    collection.add([Record(key="k", image=picture_folder / "red.png", metadata=metadata)])
    [record] = collection.get(["k"])
    assert record.metadata == {"Author": "x", "a_b": 1}
    assert "'author' is left out" in caplog.text


def test_records_of_wrong_types_are_skipped_with_the_reason(collection, picture_folder):
    picture = picture_folder / "red.png"
    report = collection.add(
        [
            Record(key=7, image=picture),
            Record(key="s", image=picture, captions="a dog"),
            Record(key="z", image="\0"),
        ]
    )
    assert report.added == 0
    assert [key for key, _ in report.skipped] == ["7", "s", "z"]
    assert "list" in report.skipped[1][1]


def test_the_index_file_that_repair_writes_holds_the_rows_of_the_table(collection):
    from crossmodal.index import FaissIndex

    (collection.path / "index" / "image.index").write_bytes(b"torn")
    collection.verify(repair=True)
    index, stamp = FaissIndex.load(collection.path / "index" / "image.index")
    assert stamp["version"] == str(collection._current().version)
    for table in collection._current().iterate(embeddings=True):
        for row, vector in zip(table.to_pylist(), embedding_matrix(table), strict=True):
            if row["modality"] == "image":
                scores, ids = index.search(vector[None], 1)
                assert (int(ids[0, 0]), round(float(scores[0, 0]), 5)) == (row["_rowid"], 1.0)
