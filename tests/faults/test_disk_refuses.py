"""A disk that refuses is answered in one line, what was committed stays, and nothing is left half-made."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from crossmodal import Collection, Record
from crossmodal.errors import CollectionError, StorageError
from crossmodal.refusals import storage_errors


def test_a_file_larger_than_allowed_stops_the_work_and_keeps_what_was_committed(tmp_path):
    """The limit on a file's size stands for a full disk: the system refuses a write in the middle."""
    script = textwrap.dedent(
        f"""
        import random, resource, sys
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        import crossmodal.collection.adding as adding
        from conftest import ToyEncoder
        from crossmodal import Collection, Record
        import numpy as np

        adding.COMMIT_RECORDS = 64
        collection = Collection.create({str(tmp_path / "c")!r}, ToyEncoder())
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        pixels = np.zeros((8, 8, 3), np.uint8)
        chance = random.Random(1)

        def records():
            for i in range(200):
                yield Record(key=str(i), image=pixels)
            for i in range(200, 400):
                yield Record(key=str(i), image=pixels, captions=(chance.randbytes(20_000).hex(),))

        try:
            collection.add(records())
        except Exception as error:
            print(type(error).__name__, str(error))
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("StorageError "), done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 1
    collection = Collection.open(tmp_path / "c")
    assert 64 <= len(collection) < 400


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("LanceError(IO): No space left on device (os error 28)", "full"),
        ("Read-only file system (os error 30)", "read-only"),
        ("Permission denied (os error 13)", "no permission"),
    ],
)
@pytest.mark.parametrize("kind", [OSError, RuntimeError, ValueError])
def test_every_wording_of_a_refusal_becomes_one_line(tmp_path, message, advice, kind):
    with pytest.raises(StorageError, match=advice), storage_errors(tmp_path):
        raise kind(f"something at /a/b.rs:17:3: {message}, more")


def test_another_error_is_not_taken_for_a_refusal(tmp_path):
    with pytest.raises(ValueError, match="something else"), storage_errors(tmp_path):
        raise ValueError("something else")
    with pytest.raises(CollectionError), storage_errors(tmp_path):
        raise CollectionError("permission denied by ourselves")


def test_a_creation_that_fails_leaves_nothing(tmp_path, toy_encoder, monkeypatch):
    def refuse(*args, **options):
        (tmp_path / "c" / "records.lance").mkdir()
        raise OSError("No space left on device")

    monkeypatch.setattr("lance.write_dataset", refuse)
    with pytest.raises(StorageError):
        Collection.create(tmp_path / "c", toy_encoder)
    assert not (tmp_path / "c").exists()


def test_a_creation_that_was_killed_can_be_made_again(tmp_path, toy_encoder, picture_folder):
    (tmp_path / "c" / "records.lance" / "data").mkdir(parents=True)
    collection = Collection.create(tmp_path / "c", toy_encoder)
    collection.add([Record(key="a", image=picture_folder / "red.png")])
    assert len(collection) == 1
