"""``verify`` finds what is planted, and ``repair`` mends it."""

import tarfile
from pathlib import Path

import numpy as np
import pytest

from crossmodal import Collection
from crossmodal.collection.schema import to_table
from crossmodal.errors import CollectionError


@pytest.fixture
def collection(tmp_path, toy_encoder, picture_folder) -> Collection:
    collection = Collection.create(tmp_path / "c", toy_encoder)
    collection.add(picture_folder)
    return collection


def plant(collection: Collection, change) -> None:
    """Write damaged rows past the library."""
    import lance

    store = collection._current()
    [record] = store.records(["red.png"], embeddings=True).values()
    table = change(to_table([record], store._dataset.schema))
    store.delete(["red.png"])
    lance.write_dataset(table, str(collection.path / "records.lance"), mode="append")


def test_a_sound_collection_is_clean(collection):
    report = collection.verify()
    assert (report.ok, report.records, report.rows, report.missing) == (True, 8, 16, [])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.filter(np.array(t["modality"]) == "text"), "0 picture rows"),
        (lambda t: t.take([0, 0, 1]), "2 picture rows"),
        (lambda t: t.take([0, 1, 1]), "captions at places [0, 0]"),
        (
            lambda t: t.set_column(
                t.schema.get_field_index("embedding"),
                t.schema.field("embedding"),
                type(t["embedding"].chunk(0)).from_arrays(np.full(32, np.nan, np.float32), 16),
            ),
            "length nan",
        ),
    ],
)
def test_damage_is_found_told_and_repaired(collection, picture_folder, change, told):
    plant(collection, change)
    report = collection.verify()
    assert not report.ok
    assert any(told in problem and "red.png" in problem for problem in report.problems), report.problems
    mended = collection.verify(repair=True)
    assert mended.ok
    assert collection.verify().ok
    assert len(collection) == 7
    assert collection.add(picture_folder).added == 1
    assert collection.search("a red picture", k=1)[0].key == "red.png"


def test_a_picture_that_is_gone_is_told_but_is_no_damage(collection, picture_folder):
    (picture_folder / "red.png").unlink()
    report = collection.verify()
    assert report.ok
    assert report.missing == ["red.png"]


def test_a_torn_index_is_no_damage_and_repair_writes_it_again(collection):
    file = collection.path / "index" / "image.index"
    file.write_bytes(b"torn")
    reopened = Collection.open(collection.path, collection.encoder)
    assert reopened.verify().ok
    reopened.verify(repair=True)
    assert file.stat().st_size > 100


def test_pictures_in_shards_are_missing_only_when_their_shard_is(tmp_path, toy_encoder, picture_folder):
    shard = tmp_path / "one.tar"
    with tarfile.open(shard, "w") as tar:
        for name in ("red.png", "blue.png"):
            tar.add(picture_folder / name, name)
    collection = Collection.create(tmp_path / "shards", toy_encoder)
    assert collection.add(shard).added == 2
    assert collection.verify().missing == []
    shard.unlink()
    assert sorted(collection.verify().missing) == ["blue", "red"]


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("harm", [torn, Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("files", ["data/*.lance", "_versions/*.manifest"])
def test_torn_tables_are_told_in_one_line(collection, harm, files):
    """Without an index file, every question has to read the table."""
    damaged = sorted((collection.path / "records.lance").glob(files))
    for path in damaged[: 1 if "versions" in files else None]:
        harm(path)
    for file in (collection.path / "index").iterdir():
        file.unlink()

    def ask():
        opened = Collection.open(collection.path, collection.encoder)
        opened.search("red", k=3)
        opened.get(["red.png"])

    if files.startswith("_versions") and harm is Path.unlink:
        ask()  # the version before is whole, and is the newest there is
        return
    with pytest.raises(CollectionError, match="damaged") as caught:
        ask()
    assert "\n" not in str(caught.value)
    if "data" in files:
        report = Collection.open(collection.path, collection.encoder).verify()
        assert not report.ok
        assert any("damaged" in problem for problem in report.problems)
