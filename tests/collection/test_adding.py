"""What ``add`` promises: nothing lost, nothing embedded twice, everything left out is named."""

import datetime
import os
import time

import numpy as np
import pytest

from crossmodal import Collection, CrossmodalError, Record
from crossmodal.collection.schema import embedding_matrix
from crossmodal.errors import CollectionError


def contents(collection: Collection) -> dict[tuple[str, str, int], tuple]:
    """Every row of a collection, read past the library's own reading of records."""
    rows = {}
    for table in collection._current().iterate(embeddings=True):
        vectors = embedding_matrix(table)
        for row, vector in zip(
            table.drop_columns(["embedding", "_rowid", "_stamp"]).to_pylist(), vectors, strict=True
        ):
            identity = (row.pop("key"), row.pop("modality"), row.pop("_position"))
            assert identity not in rows
            rows[identity] = (tuple(sorted(row.items(), key=str)), vector.tobytes())
    return rows


@pytest.fixture
def collection(tmp_path, toy_encoder) -> Collection:
    return Collection.create(tmp_path / "c", toy_encoder)


def counts(report) -> tuple[int, int, int, int, int]:
    return report.added, report.updated, report.unchanged, report.removed, len(report.skipped)


def test_each_record_is_a_row_and_each_caption_one(collection, picture_folder, toy_encoder):
    (picture_folder / "red.txt").write_text("first\nsecond\n")
    assert counts(collection.add(picture_folder)) == (8, 0, 0, 0, 0)
    assert len(collection) == 8
    rows = contents(collection)
    assert len(rows) == 8 + 9
    _, vector = rows["red.png", "text", 1]
    assert vector == toy_encoder.encode_texts(["second"])[0].tobytes()
    _, vector = rows["red.png", "image", 0]
    assert vector == toy_encoder.encode_images([picture_folder / "red.png"])[0].tobytes()


def test_the_same_again_embeds_nothing_and_changes_nothing(collection, picture_folder, toy_encoder):
    collection.add(picture_folder)
    before, embedded = contents(collection), (toy_encoder.images_embedded, toy_encoder.texts_embedded)
    assert counts(collection.add(picture_folder)) == (0, 0, 8, 0, 0)
    assert contents(collection) == before
    assert (toy_encoder.images_embedded, toy_encoder.texts_embedded) == embedded


def test_a_changed_caption_updates_one_record_and_embeds_one_text(collection, picture_folder, toy_encoder):
    collection.add(picture_folder)
    images, texts = toy_encoder.images_embedded, toy_encoder.texts_embedded
    (picture_folder / "red.txt").write_text("a scarlet picture")
    assert counts(collection.add(picture_folder)) == (0, 1, 7, 0, 0)
    assert (toy_encoder.images_embedded - images, toy_encoder.texts_embedded - texts) == (0, 1)
    [record] = collection.get(["red.png"])
    assert record.captions == ("a scarlet picture",)


def test_a_changed_picture_is_embedded_again_even_with_its_old_times(
    collection, picture_folder, make_picture, toy_encoder
):
    path = picture_folder / "red.png"
    long_ago = time.time() - 10_000
    os.utime(path, (long_ago, long_ago))
    collection.add(picture_folder)
    make_picture(path, "blue")
    os.utime(path, (long_ago, long_ago))
    assert counts(collection.add(picture_folder)) == (0, 1, 7, 0, 0)
    assert contents(collection)["red.png", "image", 0][1] == toy_encoder.encode_images([path])[0].tobytes()


def test_surplus_captions_go_when_there_are_fewer(collection, picture_folder):
    (picture_folder / "red.txt").write_text("one\ntwo\nthree\n")
    collection.add(picture_folder)
    (picture_folder / "red.txt").write_text("three\n")
    assert counts(collection.add(picture_folder)) == (0, 1, 7, 0, 0)
    assert sorted(i for i in contents(collection) if i[0] == "red.png") == [
        ("red.png", "image", 0),
        ("red.png", "text", 0),
    ]
    assert [hit.text for hit in collection.search("three", target="text", k=1)] == ["three"]


def test_pruning_removes_what_the_source_lost_and_only_of_this_source(
    collection, picture_folder, tmp_path, make_picture
):
    other = tmp_path / "other"
    make_picture(other / "else.png", "green", 9)
    collection.add(picture_folder)
    collection.add(other)
    (picture_folder / "red.png").unlink()
    (picture_folder / "red.txt").unlink()
    assert counts(collection.add(picture_folder)) == (0, 0, 7, 0, 0), "without prune nothing goes"
    assert counts(collection.add(picture_folder, prune=True)) == (0, 0, 7, 1, 0)
    assert len(collection) == 8
    assert not collection.get(["red.png"])


def test_pruning_spares_what_lies_behind_an_unreadable_part(collection, tmp_path, make_picture):
    table = tmp_path / "pairs.jsonl"
    for name in ("a.png", "b.png"):
        make_picture(tmp_path / name)
    table.write_text('{"image": "a.png", "caption": "one"}\n{"image": "b.png", "caption": "two"}\n')
    collection.add(table, prune=True)
    table.write_text('{"image": "a.png", "caption": "one"}\n{"image": "b.png", "capt\n')
    report = collection.add(table, prune=True)
    assert counts(report) == (0, 0, 1, 0, 1)
    assert len(collection) == 2


def test_a_broken_picture_is_listed_and_its_earlier_state_kept(collection, picture_folder):
    collection.add(picture_folder)
    before = contents(collection)
    (picture_folder / "red.png").write_bytes(b"")
    report = collection.add(picture_folder, prune=True)
    assert counts(report) == (0, 0, 7, 0, 1)
    [(key, reason)] = report.skipped
    assert key == "red.png"
    assert "kept" in reason
    assert contents(collection) == before


def test_every_record_is_counted_once_or_listed(collection, picture_folder):
    (picture_folder / "broken.png").write_bytes(b"\x89PNG\r\n")
    picture = picture_folder / "red.png"
    records = [
        Record(key="a", image=picture),
        Record(key="a", image=picture),
        Record(key=" ", image=picture),
        Record(key="bad\udcff", image=picture),
        Record(key="b", image=picture_folder / "broken.png"),
        Record(key="c", image=picture, captions=("\ud800 x", " ", "fine")),
    ]
    report = collection.add(records)
    assert report.added + len(report.skipped) == len(records)
    assert [key for key, _ in report.skipped] == ["a", " ", "bad?", "b"]
    [record] = collection.get(["c"])
    assert record.captions == ("? x", "fine")


def test_metadata_comes_back_with_its_types_and_serves_as_filter(collection, picture_folder):
    when = datetime.datetime(2024, 5, 1, 12, 30)
    metadata = {"author": "Ann's", "year": 1999, "score": 0.5, "open": True, "when": when, "none": None}
    collection.add([Record(key="a", image=picture_folder / "red.png", metadata=metadata)])
    collection.add([Record(key="b", image=picture_folder / "blue.png", metadata={"year": 2001})])
    [hit] = collection.search("red", where="year < 2000 AND author = 'Ann''s' AND `open`")
    assert hit.metadata == {k: v for k, v in metadata.items() if v is not None}


def test_a_column_widens_when_a_later_value_needs_it(collection, picture_folder):
    picture = picture_folder / "red.png"

    def add(*values):
        return collection.add([Record(key=f"k{v}", image=picture, metadata={"n": v}) for v in values])

    assert counts(add(1, 2)) == (2, 0, 0, 0, 0)
    assert counts(add(2.5)) == (1, 0, 0, 0, 0)
    assert collection.info().columns["n"] == "double"
    assert counts(add(1, 2, 2.5)) == (0, 0, 3, 0, 0)
    assert counts(add("many")) == (1, 0, 0, 0, 0)
    assert collection.info().columns["n"] == "string"
    assert sorted(str(r.metadata["n"]) for r in collection.get(["k1", "k2.5", "kmany"])) == [
        "1.0",
        "2.5",
        "many",
    ]


def test_metadata_that_clashes_with_own_columns_is_kept_under_another_name(
    collection, picture_folder, caplog
):
    metadata = {"text": "mine", "embedding": 3, "a.b": 1, "Author": "x", "_id": 7}
    collection.add(
        [Record(key="a", image=picture_folder / "red.png", captions=("words",), metadata=metadata)]
    )
    [hit] = collection.search("red", where="metadata_text = 'mine' AND author = 'x' AND a_b = 1")
    assert hit.text == "words"
    assert hit.metadata == {
        "metadata_text": "mine",
        "metadata_embedding": 3,
        "a_b": 1,
        "Author": "x",
        "metadata_id": 7,
    }
    assert "metadata_text" in caplog.text
    again = collection.add(
        [Record(key="a", image=picture_folder / "red.png", captions=("words",), metadata=metadata)]
    )
    assert counts(again) == (0, 0, 1, 0, 0)


def test_what_was_embedded_before_an_interruption_is_kept(collection, picture_folder, toy_encoder):
    def stop(progress):
        if progress.done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collection.add(picture_folder, progress=stop, batch_size=2)
    kept = len(collection)
    assert 4 <= kept < 8
    assert collection.verify().ok
    embedded = toy_encoder.images_embedded
    assert counts(collection.add(picture_folder)) == (8 - kept, 0, kept, 0, 0)
    assert toy_encoder.images_embedded - embedded == 8 - kept


def test_a_second_writer_is_refused_and_readers_are_not(collection, picture_folder, monkeypatch):
    collection.add(picture_folder)
    monkeypatch.setattr("crossmodal.collection.pen.WAIT_SECONDS", 0.05)
    other = Collection.open(collection.path, collection.encoder)
    with collection._writing():
        with pytest.raises(CollectionError, match="writing"):
            other.add(picture_folder)
        assert other.search("red", k=1)[0].key == "red.png"


def test_removing_is_all_or_nothing(collection, picture_folder):
    collection.add(picture_folder)
    with pytest.raises(CrossmodalError, match="nope"):
        collection.remove(["red.png", "nope"])
    assert len(collection) == 8
    assert collection.remove(["red.png", "blue.png"]) == 2
    assert not {h.key for h in collection.search("red", k=20)} & {"red.png", "blue.png"}
    assert len(collection) == 6


def test_rows_equal_whatever_the_batches(tmp_path, picture_folder, toy_encoder):
    both = []
    for name, batch_size in (("one", 1), ("many", 64)):
        collection = Collection.create(tmp_path / name, toy_encoder)
        collection.add(picture_folder, batch_size=batch_size)
        both.append(contents(collection))
    assert both[0] == both[1]


def test_many_commits_are_compacted_and_nothing_changes(collection, picture_folder, monkeypatch, toy_encoder):
    monkeypatch.setattr("crossmodal.collection.adding.COMMIT_RECORDS", 1)
    picture = picture_folder / "red.png"
    collection.add(
        [Record(key=str(i), image=picture, captions=(f"word {i}",)) for i in range(40)], batch_size=1
    )
    rows = contents(collection)
    assert len(rows) == 80
    assert len(collection._current()._dataset.get_fragments()) < 8
    hits = collection.search("word 7", target="text", k=1)
    assert (hits[0].key, round(hits[0].score, 5)) == ("7", 1.0)
    expected = toy_encoder.encode_texts(["word 7"])[0]
    np.testing.assert_array_equal(np.frombuffer(rows["7", "text", 0][1], np.float32), expected)
