"""Batches hold every example once an epoch, the same for the same seed, epoch and step, on any processes."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from crossmodal.encoders.preprocessing import Preprocessing
from crossmodal.errors import TrainingError
from training.data.augment import AugmentSettings
from training.data.batches import AHEAD, BatchLoader, FeatureLoader
from training.data.plan import NO_OWNER, BatchPlan, BatchSettings

PLAIN = Preprocessing(size=8, fit="squash", resample="bilinear")


class Mined:
    """Hard negatives of ten examples: the next one's caption and picture, and of the last one none."""

    texts = np.array([[(row + 1) % 10] for row in range(9)] + [[-1]])
    owners = texts
    images = texts


def one_each(count):
    return [[f"caption {number}"] for number in range(count)]


def rows_of(draws):
    return [draw.images.tolist() for draw in draws]


def same(one, other):
    def plain(value):
        return value.tolist() if isinstance(value, Tensor) else value

    return all(plain(getattr(one, f)) == plain(getattr(other, f)) for f in one.__slots__)


@pytest.mark.parametrize(("last", "sizes"), [("drop", [4, 4]), ("keep", [4, 4, 2])])
def test_an_epoch_holds_every_example_once_in_an_order_of_its_own(make_examples, last, sizes):
    plan = BatchPlan(make_examples(one_each(10)), BatchSettings(size=4, last=last), seed=5)
    epochs = [rows_of(plan.batches(epoch)) for epoch in range(3)]
    assert plan.steps == len(sizes)
    for epoch in epochs:
        assert [len(rows) for rows in epoch] == sizes
        assert len(set(itertools.chain(*epoch))) == sum(sizes)
    assert epochs[0] != epochs[1]
    again = BatchPlan(plan.examples, plan.settings, seed=5)
    assert [rows_of(again.batches(epoch)) for epoch in range(3)] == epochs
    assert rows_of(BatchPlan(plan.examples, plan.settings, seed=6).batches(0)) != epochs[0]


def test_an_epoch_goes_on_from_any_step_as_if_it_had_never_stopped(make_examples, letters):
    examples = make_examples([[f"a{i}", f"b{i}", f"c{i}"] for i in range(10)])
    plan = BatchPlan(examples, BatchSettings(size=3, captions=2), seed=1)
    augment = AugmentSettings(crop=0.5, policy="randaugment", word_dropout=0.3)
    loader = BatchLoader(examples, PLAIN, letters, augment=augment, seed=1)
    whole = list(loader.load(plan.batches(4)))
    for start in range(plan.steps):
        rest = list(
            BatchLoader(examples, PLAIN, letters, augment=augment, seed=1, workers=1).load(
                plan.batches(4, start)
            )
        )
        assert len(rest) == len(whole) - start
        assert all(same(one, other) for one, other in zip(rest, whole[start:], strict=True))


def test_processes_take_slices_of_the_same_batches(make_examples):
    examples = make_examples([[f"a{i}", f"b{i}"] for i in range(11)])
    settings = BatchSettings(size=4, last="keep")
    alone = list(BatchPlan(examples, settings, seed=2).batches(1))
    plans = [BatchPlan(examples, settings, seed=2, process=p, processes=2) for p in range(2)]
    assert {plan.steps for plan in plans} == {3}
    for whole, *parts in zip(alone, *(plan.batches(1) for plan in plans), strict=True):
        assert len(parts[0].images) == len(parts[1].images) == len(whole.images) // 2
        images = np.concatenate([part.images for part in parts])
        texts = np.concatenate([part.texts for part in parts])
        np.testing.assert_array_equal(images, whole.images[: len(images)])
        np.testing.assert_array_equal(texts, whole.texts[: len(texts)])


def test_captions_of_a_row_come_in_turn_at_random_and_belong_to_it(make_examples):
    captions = [[f"{i}{letter}" for letter in "abcd"[: 1 + i % 4]] for i in range(8)]
    examples = make_examples(captions)
    plan = BatchPlan(examples, BatchSettings(size=8, captions=2), seed=0)
    seen = set()
    for epoch in range(40):
        [draw] = plan.batches(epoch)
        drawn = [examples.texts[text] for text in draw.texts]
        for row in range(8):
            own = [text for text, owner in zip(drawn, draw.owners, strict=True) if owner == row]
            assert len(own) == len(set(own)) == min(2, len(captions[row]))
            assert set(own) <= set(captions[row])
        seen |= set(drawn)
    assert seen == set(itertools.chain(*captions)), "every caption has its turn"


def test_examples_that_share_a_caption_are_kept_apart(make_examples):
    captions = [[f"shared {i // 3}", f"own {i}"] for i in range(24)]
    examples = make_examples(captions)
    for epoch in range(20):
        apart = BatchPlan(examples, BatchSettings(size=4), seed=0)
        batches = rows_of(apart.batches(epoch))
        assert sorted(itertools.chain(*batches)) == list(range(24))
        for rows in batches[:-1]:
            assert len({row // 3 for row in rows}) == 4
    together = BatchPlan(examples, BatchSettings(size=4, apart=False), seed=0)
    mixed = [rows for epoch in range(20) for rows in rows_of(together.batches(epoch))]
    assert any(len({row // 3 for row in rows}) < 4 for rows in mixed)


def test_where_too_many_share_a_caption_every_example_still_comes_once(make_examples):
    examples = make_examples([["logo"] if i % 2 else [f"own {i}"] for i in range(64)])
    plan = BatchPlan(examples, BatchSettings(size=4), seed=0)
    assert sorted(itertools.chain(*rows_of(plan.batches(0)))) == list(range(64))


def test_own_negatives_join_as_texts_of_no_example(make_examples, letters):
    examples = make_examples(one_each(4), negatives=[["not a", "not b"], [], ["not c"], []])
    plan = BatchPlan(examples, BatchSettings(size=4, negatives=1), seed=0)
    [batch] = BatchLoader(examples, PLAIN, letters).load(plan.batches(0))
    strangers = batch.text_groups == NO_OWNER
    words = [examples.texts[n] for n in batch.text_numbers[strangers]]
    assert len(words) == 2
    assert set(words) <= {"not a", "not b", "not c"}
    assert batch.texts.shape[0] == 6
    assert (batch.text_rows[strangers] == NO_OWNER).all()
    positive = batch.image_groups[:, None] == batch.text_groups
    assert positive.sum(1).tolist() == [1] * 4


def test_mined_negatives_join_once_each_with_the_examples_they_belong_to(make_examples):
    plan = BatchPlan(make_examples(one_each(10)), BatchSettings(size=3, last="drop"), seed=0)
    for draw, plain in zip(plan.batches(0, 0, Mined()), plan.batches(0), strict=True):
        rows = plain.images.tolist()
        hard = {(row + 1) % 10 for row in rows if row != 9} - set(rows)
        assert draw.pairs == 3
        assert draw.images[:3].tolist() == rows
        assert set(draw.images[3:].tolist()) == hard
        assert len(draw.images) == 3 + len(hard)
        assert set(draw.owners.tolist()) == set(rows) | hard
        assert draw.owners.tolist() == draw.texts.tolist(), "caption n is of example n here"


def test_texts_are_padded_to_the_longest_of_their_batch_and_masked(make_examples, letters):
    captions = [["ab"], ["abcdef"], ["abcdefghijklmnop"], ["a"]]
    examples = make_examples(captions)
    plan = BatchPlan(examples, BatchSettings(size=4), seed=0)
    [batch] = BatchLoader(examples, PLAIN, letters).load(plan.batches(0))
    assert batch.mask is not None
    assert batch.texts.shape == batch.mask.shape == (4, letters.limit)
    for ids, mask, row in zip(batch.texts, batch.mask, batch.text_rows.tolist(), strict=True):
        [expected] = letters(captions[row])
        assert ids[: len(expected)].tolist() == expected
        assert mask.tolist() == [1] * len(expected) + [0] * (letters.limit - len(expected))
        assert not ids[len(expected) :].any()


def test_pixels_are_those_of_the_rows(make_examples, letters):
    examples = make_examples(one_each(6))
    plan = BatchPlan(examples, BatchSettings(size=3), seed=0)
    for batch in BatchLoader(examples, PLAIN, letters).load(plan.batches(0)):
        for pixels, row in zip(batch.images, batch.image_rows.tolist(), strict=True):
            np.testing.assert_array_equal(pixels.numpy(), PLAIN(examples.pictures[row]))


def test_a_picture_that_breaks_is_replaced_by_the_same_example_each_time(make_examples, letters):
    examples = make_examples(one_each(12))
    plan = BatchPlan(examples, BatchSettings(size=4), seed=0)
    broken = int(next(plan.batches(0)).images[1])
    before = list(BatchLoader(examples, PLAIN, letters).load(plan.batches(0)))
    examples.pictures[broken].write_bytes(b"no picture any more")
    loader = BatchLoader(examples, PLAIN, letters)
    first = list(loader.load(plan.batches(0)))
    assert list(loader.replaced) == [broken]
    again = list(BatchLoader(examples, PLAIN, letters, workers=1).load(plan.batches(0)))
    assert all(same(one, other) for one, other in zip(first, again, strict=True))
    rows = first[0].image_rows.tolist()
    assert broken not in rows
    assert len(set(rows)) == 4, "the one in its place was not in the batch"
    assert sorted(first[0].text_rows.tolist()) == sorted(rows)
    assert all(same(one, other) for one, other in zip(first[1:], before[1:], strict=True))


def test_the_example_in_its_place_is_none_of_the_batch(make_examples, letters):
    examples = make_examples(one_each(5))
    examples.pictures[2].unlink()
    plan = BatchPlan(examples, BatchSettings(size=4), seed=0)
    for epoch in range(10):
        [batch] = BatchLoader(examples, PLAIN, letters).load(plan.batches(epoch))
        assert sorted(batch.image_rows.tolist()) == [0, 1, 3, 4]


def test_when_no_picture_can_be_read_any_more_training_stops(make_examples, letters):
    examples = make_examples(one_each(6))
    for picture in examples.pictures:
        picture.unlink()
    draws = BatchPlan(examples, BatchSettings(size=2), seed=0).batches(0)
    with pytest.raises(TrainingError, match=r"cannot be read any more.*resume"):
        next(BatchLoader(examples, PLAIN, letters).load(draws))


def test_loading_runs_ahead_by_a_bounded_number_of_batches(make_examples, letters):
    examples = make_examples(one_each(12))
    taken = []

    def counted():
        for draw in BatchPlan(examples, BatchSettings(size=1), seed=0).batches(0):
            taken.append(draw)
            yield draw

    batches = BatchLoader(examples, PLAIN, letters).load(counted())
    next(batches)
    assert len(taken) == AHEAD + 1
    batches.close()


def test_features_are_those_of_the_rows_and_texts_in_a_view_drawn_each_epoch(make_examples):
    examples = make_examples([[f"a{i}", f"b{i}"] for i in range(6)])
    images = (torch.arange(6)[:, None] * 10 + torch.arange(4))[..., None].half()
    texts = torch.arange(len(examples.texts))[:, None].half()
    plan = BatchPlan(examples, BatchSettings(size=6), seed=0)
    views = set()
    for epoch in range(30):
        [batch] = FeatureLoader(examples, images, texts).load(plan.batches(epoch))
        assert batch.images.dtype == batch.texts.dtype == torch.float32
        assert (batch.images[:, 0] // 10).long().tolist() == batch.image_rows.tolist()
        assert batch.texts[:, 0].long().tolist() == batch.text_numbers.tolist()
        views |= {(int(value) // 10, int(value) % 10) for value in batch.images[:, 0]}
    assert views == {(row, view) for row in range(6) for view in range(4)}


def test_a_batch_bigger_than_the_data_names_both_numbers(make_examples):
    examples = make_examples(one_each(3))
    with pytest.raises(TrainingError, match=r"batch of 4 .* has 3 pictures"):
        BatchPlan(examples, BatchSettings(size=4), seed=0)
    with pytest.raises(TrainingError, match="batch of 3 cannot be shared out evenly among 2"):
        BatchPlan(examples, BatchSettings(size=3), seed=0, processes=2)
