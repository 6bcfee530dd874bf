"""Search answers as brute force over the stored vectors does, with and without filters."""

import numpy as np
import pytest

from crossmodal import Collection, Record
from crossmodal.collection.query import AVOID_WEIGHT, embed_query, make_terms
from crossmodal.collection.schema import embedding_matrix
from crossmodal.errors import CollectionError, ImageError, QueryError, SourceError
from crossmodal.index import STORAGES

WORDS = ("red", "green", "blue", "yellow", "black", "white", "orange", "purple")


@pytest.fixture(params=STORAGES)
def collection(request, tmp_path, toy_encoder, make_picture) -> Collection:
    """Sixty records, two captions each, with metadata; some pictures are exactly alike."""
    collection = Collection.create(tmp_path / "c", toy_encoder, request.param)
    records = []
    for i in range(60):
        word = WORDS[i % len(WORDS)]
        path = make_picture(tmp_path / "p" / f"{i:02}.png", word, seed=i % 24)
        captions = (f"a {word} picture", f"number {i}")
        metadata = {"number": i, "word": word, "half": i % 2 == 0}
        records.append(Record(key=path.name, image=path, captions=captions, metadata=metadata, uri=str(path)))
    collection.add(records)
    return collection


def brute_force(collection, query, target, k, keep=lambda row: True):
    """Score every stored row in float64 and sort, apart from any index."""
    found = []
    for table in collection._current().iterate(embeddings=True):
        scores = embedding_matrix(table).astype(np.float64) @ query.astype(np.float64)
        for row, score in zip(table.drop_columns("embedding").to_pylist(), scores, strict=True):
            if row["modality"] == target and keep(row):
                found.append((-np.float32(score), row["_rowid"], row["key"], row["text"]))
    return [(key, text, -score) for score, _, key, text in sorted(found)[:k]]


@pytest.mark.parametrize("target", ["image", "text"])
@pytest.mark.parametrize("k", [1, 10, 500])
@pytest.mark.parametrize("text", ["a red picture", "number 7", "blue black"])
def test_ids_and_scores_equal_brute_force(collection, target, k, text):
    query = embed_query(make_terms(text), collection.encoder)
    hits = collection.search(text, target=target, k=k)
    expected = brute_force(collection, query, target, k)
    assert [(h.key, h.text) for h in hits] == [(key, words) for key, words, _ in expected]
    np.testing.assert_allclose([h.score for h in hits], [s for *_, s in expected], atol=1e-6)


@pytest.mark.parametrize(
    ("where", "keep"),
    [
        ("number >= 30 AND half", lambda r: r["number"] >= 30 and r["half"]),
        ("word IN ('red', 'blue')", lambda r: r["word"] in ("red", "blue")),
        ("key = '07.png'", lambda r: r["key"] == "07.png"),
        ("text LIKE '%purple%'", lambda r: "purple" in r["text"]),
        ("number < 0", lambda r: False),
        ("word <> ') OR ('", lambda r: True),
        ("WORD = 'red'", lambda r: r["word"] == "red"),
        ("word = 'red' OR word = 'green'", lambda r: r["word"] in ("red", "green")),
    ],
)
@pytest.mark.parametrize("target", ["image", "text"])
def test_a_filter_is_applied_before_the_search(collection, where, keep, target):
    query = embed_query(make_terms("a red picture"), collection.encoder)
    hits = collection.search("a red picture", target=target, k=10, where=where)
    expected = brute_force(collection, query, target, 10, keep)
    assert [(h.key, h.text) for h in hits] == [(key, words) for key, words, _ in expected]


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("nope = 3", "number (int64)"),
        ("number >", "cannot be used"),
        ("number = 3) OR (modality = 'text'", "cannot be used"),
        ("number = 'three'", "cannot be used"),
        ("number = 3 and then some", "cannot be used"),
        ("number = 3 -- comment", "cannot be used"),
        ("((number = 3)", "not closed"),
        ("word = 'red", "not closed"),
        ("\"word\" = 'red'", "`word`"),
        ('word = "red"', "'red'"),
        ("key = ?", "write the value"),
        ("key = $1", "write the value"),
        ("number + 1", "cannot be used"),
        ("", "empty"),
    ],
)
def test_a_filter_that_does_not_fit_is_refused_in_one_line(collection, where, told):
    with pytest.raises(QueryError) as caught:
        collection.search("red", where=where)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert ".rs" not in str(caught.value)


def test_terms_add_up_by_weight(collection):
    encoder = collection.encoder
    terms = [("text", "red", 1.0), ("text", "blue", AVOID_WEIGHT)]
    vector = encoder.encode_texts(["red"])[0] + AVOID_WEIGHT * encoder.encode_texts(["blue"])[0]
    vector /= np.linalg.norm(vector)
    np.testing.assert_allclose(embed_query(make_terms(terms=terms), encoder), vector, atol=1e-6)
    hits = collection.search(terms=terms, k=60)
    words = [hit.metadata["word"] for hit in hits]
    assert words[0] == "red"
    assert words[-1] == "blue"


def test_a_picture_finds_itself_and_its_captions(collection):
    [row] = collection.get(["05.png"])
    near = 1e-6 if collection.storage == "float32" else 1e-3
    assert collection.search(image=row.uri, k=1)[0].score == pytest.approx(1.0, abs=near)
    hits = collection.search(image=row.uri, target="text", k=3)
    assert {hit.text for hit in hits} == {"a white picture"}


def test_weights_may_be_numbers_of_numpy(collection):
    one = collection.search(terms=[("text", "red", 1.0)])
    assert collection.search(terms=[("text", "red", np.float32(1)), ("text", "blue", np.int64(0))]) == one


def test_hits_below_the_least_score_are_left_out(collection):
    every = collection.search("a red picture", k=60)
    some = collection.search("a red picture", k=60, min_score=0.5)
    assert some == [hit for hit in every if hit.score >= 0.5]
    assert 0 < len(some) < len(every)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"text": ""},
        {"text": "  "},
        {"text": "red", "k": 0},
        {"text": "red", "k": -1},
        {"text": "red", "k": 2.5},
        {"text": "red", "target": "picture"},
        {"terms": []},
        {"terms": [("text", "red", 0.0)]},
        {"terms": [("text", "red", float("nan"))]},
        {"terms": [("sound", "red", 1.0)]},
        {"terms": [("text", "red", 1.0), ("text", "red", -1.0)]},
        {"terms": ["red"]},
        {"text": 7},
        {"text": "red", "min_score": float("nan")},
        {"text": "red", "min_score": "high"},
    ],
)
def test_a_query_that_cannot_be_answered_is_refused_in_one_line(collection, wrong):
    with pytest.raises(QueryError) as caught:
        collection.search(**wrong)
    assert "\n" not in str(caught.value)


def test_a_query_picture_that_is_none_is_refused(collection, tmp_path):
    (tmp_path / "no.jpg").write_text("no picture")
    with pytest.raises(ImageError, match=r"no\.jpg"):
        collection.search(image=tmp_path / "no.jpg")


def test_an_empty_collection_answers_with_nothing(tmp_path, toy_encoder):
    collection = Collection.create(tmp_path / "empty", toy_encoder)
    assert collection.search("red") == []
    assert len(collection) == 0
    assert collection.verify().ok
    with pytest.raises(SourceError):
        collection.add(tmp_path / "nothing here")


def test_another_process_sees_what_was_added_and_removed_at_its_next_search(collection, picture_folder):
    reader = Collection.open(collection.path, collection.encoder)
    assert len(reader.search("red", k=100)) == 60
    collection.add(picture_folder)
    collection.remove(["00.png"])
    hits = reader.search("red", k=100)
    assert len(hits) == 67
    assert "00.png" not in {hit.key for hit in hits}
    assert "red.png" in {hit.key for hit in hits}


def test_a_lost_or_torn_index_file_loses_nothing(collection):
    expected = collection.search("a red picture", k=60)
    files = sorted((collection.path / "index").iterdir())
    assert files
    for content in (b"", b"torn", None):
        for file in files:
            if content is None:
                file.unlink()
            else:
                file.write_bytes(content)
        reopened = Collection.open(collection.path, collection.encoder)
        assert reopened.search("a red picture", k=60) == expected


def test_an_index_file_of_another_collection_is_not_believed(
    tmp_path, collection, picture_folder, toy_encoder
):
    other = Collection.create(tmp_path / "other", toy_encoder)
    other.add(picture_folder)
    for file in (collection.path / "index").iterdir():
        (other.path / "index" / file.name).write_bytes(file.read_bytes())
    assert {hit.key for hit in Collection.open(other.path, toy_encoder).search("red", k=100)} == {
        f"{word}.png" for word in WORDS
    }


def test_another_encoder_is_refused_with_both_fingerprints(collection, toy_encoder):
    other = type(toy_encoder)("other")
    with pytest.raises(CollectionError) as caught:
        Collection.open(collection.path, other)
    assert other.card.fingerprint in str(caught.value)
    assert collection.encoder.card.fingerprint in str(caught.value)


def test_a_path_that_is_no_collection_is_refused(tmp_path, picture_folder, toy_encoder):
    for path in (tmp_path / "absent", picture_folder, picture_folder / "red.png"):
        with pytest.raises(CollectionError):
            Collection.open(path)
    for path in (picture_folder, picture_folder / "red.png"):
        with pytest.raises(CollectionError):
            Collection.create(path, toy_encoder)
