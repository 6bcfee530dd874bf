"""The check of a data set leaves out what cannot be learnt from, refuses what must not be, and counts."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from crossmodal.errors import TrainingError
from crossmodal.sources import open_source
from training.data.check import CheckSettings, check_examples
from training.data.examples import NO_CAPTION, read_examples


class Words:
    """A tokenizer of words, with a mark at each end."""

    limit = 5
    padded = False

    def __call__(self, texts):
        return [[1, *range(2, 2 + len(t.split())), 0][: self.limit] for t in texts]

    def lengths(self, texts):
        return [len(t.split()) + 2 for t in texts]


def table(folder, rows, name="pairs.jsonl"):
    path = folder / name
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return read_examples(open_source(str(path)))


@pytest.fixture
def pictures(tmp_path, make_picture):
    """A function that writes so many different pictures, and gives their names."""

    def make(count, prefix="p"):
        names = [f"{prefix}{i}.png" for i in range(count)]
        for i, name in enumerate(names):
            make_picture(tmp_path / name, ("red", "blue", "green")[i % 3], seed=100 * ord(prefix) + i)
        return names

    return make


def test_captions_are_texts_once_each_and_negatives_a_list(tmp_path, pictures):
    names = pictures(3)
    examples = table(
        tmp_path,
        [
            {"image": names[0], "captions": [" a dog", "a dog", "a cat"], "negatives": ["a cow", "a cat"]},
            {"image": names[1], "captions": ["a cat"], "negatives": "no list"},
            {"image": names[2], "captions": ["  "], "negatives": None},
        ],
    )
    assert [examples.texts_of(row) for row in range(2)] == [["a dog", "a cat"], ["a cat"]]
    own = [[examples.texts[n] for n in examples.negatives[row]] for row in range(2)]
    assert own == [["a cow"], ["no list"]]
    assert sorted(examples.texts) == ["a cat", "a cow", "a dog", "no list"]
    assert examples.skipped == ((names[2], NO_CAPTION),)
    turned = examples.take([1, 0])
    assert [turned.texts_of(row) for row in range(2)] == [["a cat"], ["a dog", "a cat"]]
    assert turned.keys == [names[1], names[0]]


@pytest.mark.parametrize("hold", [0, 10**9])
def test_pictures_that_came_as_bytes_are_held_or_read_again(hold):
    examples = read_examples(open_source("sample:validation"), hold_bytes=hold)
    assert (examples.pictures[3] is None) == (hold == 0)
    record = list(open_source("sample:validation"))[3]
    assert examples.picture(3) == record.image
    assert examples.texts_of(3) == list(record.captions)


def test_a_source_without_pairs_says_so(tmp_path, pictures):
    pictures(2)
    with pytest.raises(TrainingError, match=r"holds no picture with a caption.*2 left out"):
        read_examples(open_source(str(tmp_path)))


@pytest.mark.parametrize("decode", [False, True])
def test_unreadable_pictures_are_left_out_each_with_its_reason(tmp_path, pictures, decode):
    names = pictures(8)
    (tmp_path / names[1]).write_bytes(b"<html>")
    (tmp_path / names[2]).unlink()
    content = (tmp_path / names[3]).read_bytes()
    (tmp_path / names[3]).write_bytes(content[: len(content) // 2])
    examples = table(tmp_path, [{"image": n, "caption": n} for n in names])
    done = check_examples(examples, settings=CheckSettings(decode=decode, most_unreadable=0.5))
    failed = dict(done.check.training.unreadable)
    assert set(failed) == set(names[1:3] + names[3:4] * decode)
    assert "HTML" in failed[names[1]]
    assert "no such file" in failed[names[2]]
    assert [n for n in names if n not in failed] == list(done.training.keys)
    assert any(f"{len(failed)} pictures cannot be read" in line for line in done.check.lines())


def test_too_many_unreadable_pictures_stop_the_training(tmp_path, pictures):
    names = pictures(20)
    examples = table(tmp_path, [{"image": n, "caption": n} for n in names])
    (tmp_path / names[0]).write_bytes(b"no")
    assert len(check_examples(examples).training) == 19, "one in twenty is 5%, which is let pass"
    (tmp_path / names[1]).write_bytes(b"no")
    with pytest.raises(TrainingError, match=r"2 of 20 pictures.*at most 5%.*check\.most_unreadable"):
        check_examples(examples)


def test_captions_lengths_and_repetitions_are_counted(tmp_path, pictures):
    names = pictures(4)
    shutil.copy(tmp_path / names[0], tmp_path / "copy.png")
    examples = table(
        tmp_path,
        [
            {"image": names[0], "captions": ["one two three four", "one"]},
            {"image": names[1], "captions": ["one"]},
            {"image": names[2], "captions": ["one two three", "two"]},
            {"image": "copy.png", "captions": ["two three four five six"]},
        ],
    )
    done = check_examples(examples, tokenizer=Words())
    facts = done.check.training
    assert (facts.images, facts.captions, facts.captions_per_image) == (4, 6, {1: 2, 2: 2})
    assert facts.repeated_captions == 1
    assert facts.same_pictures == 1
    assert facts.lengths is not None
    assert (facts.lengths.measured, facts.lengths.cut, facts.lengths.longest) == (5, 2, 7)
    assert facts.lengths.median == np.median([6, 3, 5, 3, 7])
    groups = done.training.groups
    assert groups[0] == groups[3], "the same picture is the same group"
    assert len(set(groups.tolist())) == 3
    json.dumps(done.check.to_dict())


@pytest.mark.parametrize("how", ["picture", "key"])
def test_records_in_training_and_validation_are_refused_dropped_or_kept(tmp_path, pictures, how):
    train = pictures(6)
    other = pictures(2, "v")
    rows = [{"image": n, "caption": f"train {n}", "key": f"t{n}"} for n in train]
    validation = [{"image": n, "caption": "Train  p1.png", "key": f"v{n}"} for n in other]
    if how == "picture":
        shutil.copy(tmp_path / train[2], tmp_path / other[0])
    else:
        validation[0]["key"] = rows[2]["key"]
    examples, held_out = table(tmp_path, rows), table(tmp_path, validation, "validation.jsonl")
    with pytest.raises(TrainingError, match=r"1 records.*\(tp2\.png\).*check\.shared"):
        check_examples(examples, held_out)
    dropped = check_examples(examples, held_out, settings=CheckSettings(shared="drop"))
    assert list(dropped.training.keys) == [f"t{n}" for n in train if n != train[2]]
    kept = check_examples(examples, held_out, settings=CheckSettings(shared="keep"))
    assert len(kept.training) == 6
    shared = kept.check.shared
    assert shared is not None
    assert (len(shared.same_picture), len(shared.same_key)) == ((1, 0) if how == "picture" else (0, 1))
    assert shared.same_captions == 1, "but for capitals and spaces the captions are the same"


def test_the_same_caption_alone_is_told_and_not_refused(tmp_path, pictures):
    rows = [{"image": n, "caption": "a"} for n in pictures(3)]
    others = [{"image": n, "caption": "a"} for n in pictures(2, "v")]
    done = check_examples(table(tmp_path, rows), table(tmp_path, others, "v.jsonl"))
    assert done.check.shared is not None
    assert done.check.shared.same_captions == 1
    assert any("1 captions are in training and in validation" in line for line in done.check.lines())


def test_a_header_that_promises_too_many_pixels_is_unreadable(tmp_path, pictures):
    names = pictures(3)
    large = Image.new("1", (40_000, 40_000))
    large.save(tmp_path / names[0])
    examples = table(tmp_path, [{"image": n, "caption": n} for n in names])
    done = check_examples(examples, settings=CheckSettings(most_unreadable=0.5))
    [(key, reason)] = done.check.training.unreadable
    assert key == names[0]
    assert "40000 x 40000" in reason


def test_files_that_differ_in_their_last_byte_alone_are_two_pictures(tmp_path):
    whole = Image.new("RGB", (40, 40), "red")
    for name, blue in (("a.bmp", 0), ("b.bmp", 1), ("c.bmp", 0)):
        whole.putpixel((39, 0), (255, 0, blue))
        whole.save(tmp_path / name)
    examples = table(tmp_path, [{"image": n, "caption": n} for n in ("a.bmp", "b.bmp", "c.bmp")])
    groups = check_examples(examples).training.groups.tolist()
    assert groups[0] == groups[2] != groups[1]
