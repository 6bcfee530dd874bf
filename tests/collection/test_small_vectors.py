"""Collections of small vectors: what the table holds, what it costs, and that nothing else changes."""

import json

import lance
import numpy as np
import pyarrow as pa
import pytest

import crossmodal.encoders
from crossmodal import Collection, Record
from crossmodal.collection import agreement
from crossmodal.collection.agreement import Witness
from crossmodal.collection.schema import embedding_matrix
from crossmodal.encoders import Encoder
from crossmodal.encoders.prefix import PrefixEncoder
from crossmodal.errors import CollectionError
from crossmodal.index import STORAGES, FaissIndex

SMALL = ["float16", "int8", "binary"]


@pytest.fixture(params=STORAGES)
def collection(request, tmp_path, toy_encoder, picture_folder) -> Collection:
    collection = Collection.create(tmp_path / "c", toy_encoder, request.param)
    collection.add(picture_folder)
    return collection


def table(collection: Collection):
    """The table as Lance reads it, past the library."""
    read = lance.dataset(str(collection.path / "records.lance")).to_table(with_row_id=True)
    return {(row["key"], row["modality"], row["_position"]): row for row in read.to_pylist()}


def kept(row: dict, storage: str) -> np.ndarray:
    numbers = np.array(row["embedding"])
    return numbers * row["_scale"] if storage in ("int8", "binary") else numbers


def test_the_table_holds_each_vector_in_its_form(collection, toy_encoder, picture_folder):
    types = {"float32": "float", "float16": "halffloat", "int8": "int8", "binary": "int8"}
    fields = lance.dataset(str(collection.path / "records.lance")).schema
    assert str(fields.field("embedding").type.value_type) == types[collection.storage]
    rows = table(collection)
    assert len(rows) == 16
    for (key, modality, _), row in rows.items():
        encode = toy_encoder.encode_images if modality == "image" else toy_encoder.encode_texts
        expected = encode([picture_folder / key if modality == "image" else row["text"]])[0]
        # The largest number of a vector becomes 127, so none is off by more than half of a 127th of it.
        off = {"float32": 0, "float16": 2**-11}.get(collection.storage, 0.6 / 127)
        np.testing.assert_allclose(kept(row, collection.storage), expected, atol=off)


def test_what_is_not_embedded_again_keeps_every_digit(collection, picture_folder):
    """A changed caption writes the record's other vectors anew, from what was read of them."""
    before = table(collection)
    (picture_folder / "red.txt").write_text("a red picture\nanother line\n")
    assert collection.add(picture_folder).updated == 1
    after = table(collection)
    assert len(after) == len(before) + 1
    for identity, row in before.items():
        assert after[identity]["embedding"] == row["embedding"]
        assert after[identity].get("_scale") == row.get("_scale")


def test_adding_changing_and_removing_end_where_a_fresh_collection_does(
    collection, tmp_path, toy_encoder, picture_folder, make_picture
):
    make_picture(picture_folder / "blue.png", "yellow", 5)
    (picture_folder / "green.png").unlink()
    (picture_folder / "green.txt").unlink()
    (picture_folder / "red.txt").write_text("a purple picture")
    make_picture(picture_folder / "new.png", "orange", 6)
    collection.add(picture_folder, prune=True)
    collection.remove(["black.png"])
    fresh = Collection.create(tmp_path / "fresh", toy_encoder, collection.storage)
    fresh.add(picture_folder)
    fresh.remove(["black.png"])
    reopened = Collection.open(collection.path, toy_encoder)
    for words in ("a red picture", "purple", "orange yellow"):
        for target in ("image", "text"):
            answers = [
                {(h.key, h.text, h.score) for h in c.search(words, target=target, k=100)}
                for c in (collection, reopened, fresh)
            ]
            assert answers[0] == answers[1] == answers[2]
            assert answers[0]
    assert collection.verify().ok


def test_what_an_interruption_leaves_is_gone_on_with(tmp_path, toy_encoder, picture_folder):
    def stop(progress):
        if progress.done >= 4:
            raise KeyboardInterrupt

    for storage in SMALL:
        collection = Collection.create(tmp_path / storage, toy_encoder, storage)
        with pytest.raises(KeyboardInterrupt):
            collection.add(picture_folder, progress=stop, batch_size=2)
        reopened = Collection.open(collection.path, toy_encoder)
        assert 4 <= reopened.add(picture_folder).unchanged < 8
        assert reopened.verify().ok
        assert len(reopened.search("red", k=100)) == 8


@pytest.mark.parametrize("storage", ["float16", "int8"])
def test_damaged_numbers_are_found_and_mended(tmp_path, toy_encoder, picture_folder, storage):
    collection = Collection.create(tmp_path / "d", toy_encoder, storage)
    collection.add(picture_folder)
    dataset = lance.dataset(str(collection.path / "records.lance"))
    rows = dataset.to_table(filter="key = 'red.png' AND modality = 'image'")
    name = "_scale" if storage == "int8" else "embedding"
    column = rows[name].combine_chunks()
    if storage == "int8":
        column = pa.array(np.array([0.5], np.float32))
    else:
        column = type(column).from_arrays(np.full(16, 3, np.float16), 16)
    at = rows.schema.get_field_index(name)
    dataset.delete("key = 'red.png' AND modality = 'image'")
    damaged = rows.set_column(at, rows.schema.field(at), column)
    lance.write_dataset(damaged, str(collection.path / "records.lance"), mode="append")
    report = Collection.open(collection.path, toy_encoder).verify()
    assert report.damaged == {"red.png"}
    assert Collection.open(collection.path, toy_encoder).verify(repair=True).ok


def test_bits_that_score_wrongly_are_found(tmp_path, toy_encoder, picture_folder):
    collection = Collection.create(tmp_path / "b", toy_encoder, "binary")
    collection.add(picture_folder)
    file = collection.path / "index" / "image.index"
    index, stamp = FaissIndex.load(file)
    ids = index.ids()
    index.add(ids, np.roll(index._rows.vectors[index._rows.positions(ids)], 1, axis=0))
    index.save(file, stamp)
    report = Collection.open(collection.path, toy_encoder).verify()
    assert any("does not answer as brute force does" in problem for problem in report.problems)


def test_a_binary_index_leaves_to_its_file_what_it_reads_by_row(tmp_path, toy_encoder, picture_folder):
    collection = Collection.create(tmp_path / "b", toy_encoder, "binary")
    collection.add(picture_folder)
    index = collection._searcher.index(collection._current(), "image")
    scales, codes, bits = index._rows._arrays
    assert isinstance(bits, np.ndarray)
    for array in (scales, codes):
        base = array._head
        while base is not None and not isinstance(base, np.memmap):
            base = base.base
        assert isinstance(base, np.memmap)


def test_a_collection_without_a_word_of_storage_is_float32(tmp_path, toy_encoder, picture_folder):
    collection = Collection.create(tmp_path / "old", toy_encoder)
    stated = json.loads(lance.dataset(str(collection.path / "records.lance")).schema.metadata[b"crossmodal"])
    assert stated.keys() == {"format", "id", "encoder"}
    assert stated["format"] == "1"
    assert Collection.open(collection.path).storage == "float32"


@pytest.mark.parametrize("storage", SMALL)
def test_a_version_that_knew_float32_alone_refuses_small_vectors(tmp_path, toy_encoder, storage):
    """It reads format 1 and nothing else, so another number is what stops it."""
    collection = Collection.create(tmp_path / "c", toy_encoder, storage)
    stated = json.loads(lance.dataset(str(collection.path / "records.lance")).schema.metadata[b"crossmodal"])
    assert (stated["format"], stated["storage"]) == ("2", storage)
    assert Collection.open(collection.path).storage == storage


def test_an_unknown_storage_is_refused_and_leaves_nothing(tmp_path, toy_encoder):
    with pytest.raises(CollectionError, match=r"Unknown storage 'int4'\. Did you mean 'int8'"):
        Collection.create(tmp_path / "c", toy_encoder, "int4")
    assert not (tmp_path / "c").exists()


def test_a_collection_of_prefixes_opens_with_its_prefix_again(
    tmp_path, toy_encoder, picture_folder, monkeypatch
):
    monkeypatch.setitem(crossmodal.encoders._CATALOGUE, "toy", lambda *_: toy_encoder)
    prefix = PrefixEncoder(toy_encoder, 12)
    collection = Collection.create(tmp_path / "c", prefix, "int8")
    collection.add(picture_folder)
    expected = collection.search("red", k=8)
    reopened = Collection.open(collection.path)
    assert reopened.search("red", k=8) == expected
    assert (reopened.encoder.card.dim, reopened.encoder.card.fingerprint) == (12, prefix.card.fingerprint)
    with pytest.raises(CollectionError, match=r"\+12"):
        Collection.open(collection.path, toy_encoder)


@pytest.mark.parametrize(("storage", "table_bytes", "searched"), [
    ("float32", 64, 64), ("float16", 32, 32), ("int8", 20, 20), ("binary", 20, 2),
])  # fmt: skip
def test_info_counts_the_bytes_of_a_vector(tmp_path, toy_encoder, storage, table_bytes, searched):
    info = Collection.create(tmp_path / "c", toy_encoder, storage).info()
    assert (info.storage, info.bytes_per_vector) == (storage, table_bytes)
    assert info.index["bytes_per_vector"] == searched


# -- what it costs ----------------------------------------------------------------------------------------


class Given(Encoder):
    """An encoder of given vectors: text "7" is row 7 of them, and a picture is the row in its pixels."""

    def __init__(self, vectors, card):
        self.vectors, self.card, self.batch_size = vectors, card, 4

    def prepare_image(self, image):
        raise AssertionError("pixels are given")

    def embed_texts(self, texts):
        return self.vectors[[int(text) for text in texts]]

    def embed_pixels(self, pixels):
        return self.vectors[pixels.reshape(len(pixels), -1)[:, 0].astype(int)]


def unit(rng, n, dim):
    vectors = rng.standard_normal((n, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("asked", ["text", "image"])
def test_the_share_that_stays_is_what_brute_force_counts(toy_encoder, asked):
    vectors = unit(np.random.default_rng(0), 250, 16)
    encoder = PrefixEncoder(Given(vectors, toy_encoder.card), 9)
    witness = Witness(encoder, "float16")
    pictures = np.arange(250, dtype=np.uint8).reshape(-1, 1, 1, 1)[:200]
    for start in range(0, 200, 40):
        seen = witness.embed_pixels(pictures[start : start + 40])
        np.testing.assert_array_equal(seen, encoder.embed_pixels(pictures[start : start + 40]))
    if asked == "text":
        witness.embed_texts([str(i) for i in range(200, 250)])
    found = witness.measure()
    assert found is not None
    assert (found.modality, found.dim, found.whole_dim, found.storage) == (asked, 9, 16, "float16")
    assert (found.queries, found.pictures) == ((50, 200) if asked == "text" else (20, 180))
    if asked == "text":
        small = vectors[:, :9] / np.linalg.norm(vectors[:, :9], axis=1, keepdims=True)
        halves = small.astype(np.float16).astype(np.float32)
        whole_best = np.argsort(-(vectors[200:] @ vectors[:200].T), axis=1)[:, :10]
        small_best = np.argsort(-(small[200:] @ halves[:200].T), axis=1)[:, :10]
        common = [len(set(a) & set(b)) for a, b in zip(whole_best.tolist(), small_best.tolist(), strict=True)]
        assert found.share == pytest.approx(sum(common) / 500)
    assert 0 < found.share < 1


def test_the_sample_is_bounded_even_and_repeatable(toy_encoder, monkeypatch):
    monkeypatch.setattr(agreement, "PICTURES", 40)
    monkeypatch.setattr(agreement, "QUERIES", 10)
    vectors = unit(np.random.default_rng(1), 250, 16)
    drawn = []
    for _ in range(2):
        witness = Witness(Given(vectors, toy_encoder.card), "int8")
        witness.embed_pixels(np.arange(250, dtype=np.uint8).reshape(-1, 1, 1, 1))
        rows = witness._pictures.rows
        assert rows.shape == (50, 16)
        drawn.append([int(np.flatnonzero((vectors == row).all(axis=1))[0]) for row in rows])
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 50
    assert 80 < np.mean(drawn[0]) < 170
    assert 50 < np.mean(drawn[0][:25]) < 200


@pytest.mark.parametrize("storage", SMALL)
def test_an_add_reports_what_small_vectors_cost(tmp_path, toy_encoder, make_picture, storage):
    pictures = [make_picture(tmp_path / "p" / f"{i}.png", "red", seed=i) for i in range(30)]
    records = [Record(key=p.name, image=p, captions=(f"red {p.stem}",)) for p in pictures]
    collection = Collection.create(tmp_path / "c", toy_encoder, storage)
    report = collection.add(records)
    told = report.to_dict()["agreement"]
    assert (told["queries"], told["modality"], told["pictures"]) == (30, "text", 30)
    assert (told["storage"], told["dim"], told["whole_dim"]) == (storage, 16, 16)
    assert 0.5 < told["share"] <= 1
    assert "agreement" not in collection.add(records).to_dict(), "nothing was embedded"


def test_whole_float32_vectors_cost_nothing_and_nothing_is_said(tmp_path, toy_encoder, picture_folder):
    report = Collection.create(tmp_path / "c", toy_encoder).add(picture_folder)
    assert report.agreement is None
    assert "agreement" not in report.to_dict()


def test_reading_a_column_of_codes_gives_numbers(collection):
    """The library's own reading equals what Lance says, one row at a time."""
    for part in collection._current().iterate(embeddings=True):
        for row, vector in zip(part.to_pylist(), embedding_matrix(part), strict=True):
            np.testing.assert_allclose(vector, kept(row, collection.storage), atol=1e-7)
