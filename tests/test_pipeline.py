"""The pipeline gives every record its own embeddings, whatever surrounds it, in bounded memory."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crossmodal.pipeline import AHEAD, Work, content_digest, embed_records, file_stamp
from crossmodal.types import Record


def works_of(folder: Path, texts: tuple[str, ...] = ()) -> list[Work]:
    return [Work(record=Record(key=p.name, image=p), texts=texts) for p in sorted(folder.glob("*.png"))]


@pytest.mark.parametrize("batch_size", [1, 3, 8, 50])
def test_embeddings_equal_those_of_each_record_alone(picture_folder, toy_encoder, batch_size):
    works = [
        Work(record=w.record, texts=("a " + w.record.key, "two")[: 1 + i % 2])
        for i, w in enumerate(works_of(picture_folder))
    ]
    done = [d for batch in embed_records(works, toy_encoder, batch_size=batch_size) for d in batch]
    assert [d.work.record.key for d in done] == [w.record.key for w in works]
    for d in done:
        np.testing.assert_array_equal(d.image_embedding, toy_encoder.encode_images([d.work.record.image])[0])
        np.testing.assert_array_equal(d.text_embeddings, toy_encoder.encode_texts(d.work.texts))


def test_a_broken_picture_fails_alone_and_says_why(picture_folder, toy_encoder):
    (picture_folder / "broken.png").write_bytes(b"no picture")
    works = [*works_of(picture_folder), Work(record=Record(key="gone", image=picture_folder / "gone.png"))]
    done = {d.work.record.key: d for batch in embed_records(works, toy_encoder) for d in batch}
    failed = {key for key, d in done.items() if d.failure}
    assert failed == {"broken.png", "gone"}
    assert "no such file" in done["gone"].failure
    assert all(d.image_embedding is not None for key, d in done.items() if key not in failed)


def test_a_known_picture_is_not_embedded_again(picture_folder, toy_encoder):
    path = picture_folder / "red.png"
    known = Work(record=Record(key="red", image=path), texts=("new",), known_digest=content_digest(path))
    [[done]] = embed_records([known], toy_encoder)
    assert toy_encoder.images_embedded == 0
    assert done.image_embedding is None
    np.testing.assert_array_equal(done.text_embeddings, toy_encoder.encode_texts(["new"]))


def test_a_picture_whose_stamp_is_known_is_not_even_read(picture_folder, toy_encoder, monkeypatch):
    path = picture_folder / "red.png"
    monkeypatch.setattr("crossmodal.pipeline.SETTLED_SECONDS", -60)
    work = Work(record=Record(key="red", image=path), known_digest="abc", known_stamp=file_stamp(path))
    monkeypatch.setattr("crossmodal.pipeline.content_digest", lambda image: pytest.fail("was read"))
    [[done]] = embed_records([work], toy_encoder)
    assert (done.digest, done.failure) == ("abc", "")


def test_decoding_runs_ahead_by_a_bounded_number_of_pictures(picture_folder, toy_encoder):
    taken = 0

    def counting() -> Iterator[Work]:
        nonlocal taken
        for i in range(500):
            taken += 1
            yield Work(record=Record(key=str(i), image=picture_folder / "red.png"))

    results = embed_records(counting(), toy_encoder, batch_size=4)
    first = next(results)
    assert len(first) == 4
    assert taken <= 4 * (AHEAD + 1) + 1
    results.close()


def test_the_stamp_changes_with_the_file_and_a_fresh_file_has_none(
    tmp_path, make_picture: Callable[..., Path]
):
    path = make_picture(tmp_path / "a.png")
    assert file_stamp(path) == ""
    long_ago = time.time() - 1000
    os.utime(path, (long_ago, long_ago))
    assert file_stamp(path) == "", "the inode was changed just now, whatever the time of modification says"
    assert file_stamp(b"bytes") == ""


def test_the_digest_is_of_the_content_alone(tmp_path, make_picture: Callable[..., Path]):
    path = make_picture(tmp_path / "a.png")
    assert content_digest(path) == content_digest(str(path)) == content_digest(path.read_bytes())
    assert content_digest(path) != content_digest(make_picture(tmp_path / "b.png", "blue"))
    flat, tall = np.zeros((2, 8, 3), np.uint8), np.zeros((8, 2, 3), np.uint8)
    assert content_digest(flat) != content_digest(tall)
    assert content_digest(Image.fromarray(flat)) != content_digest(Image.fromarray(tall))
