"""Hard negatives, near-duplicates and ignored pairs are those that brute force finds."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from training.data.examples import Examples, Ragged
from training.negatives.ignored import IgnoredPairs
from training.negatives.mining import MiningSettings, mine
from training.negatives.near_duplicates import near_duplicates


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def examples_of(captions, texts, negatives=None):
    count = len(captions)
    return Examples(
        spec="made up",
        keys=[str(row) for row in range(count)],
        pictures=[b""] * count,
        uris=[""] * count,
        texts=[f"text {number}" for number in range(texts)],
        captions=Ragged.of(captions),
        negatives=Ragged.of(negatives or [[]] * count),
        groups=np.arange(count),
    )


@pytest.fixture
def crowd():
    """Sixty pictures of two captions, some shared, three in one group; embeddings near their captions'."""
    random = np.random.default_rng(0)
    captions = [[2 * row, 2 * row + 1] for row in range(60)]
    captions[7] = [14, 20]  # 20 is a caption of row 10, too
    examples = replace(examples_of(captions, 122), groups=np.array([0, 0, 0, *range(3, 60)]))
    images = unit(random.normal(size=(60, 6)))
    texts = unit(random.normal(size=(122, 6)))
    for row, own in enumerate(captions):
        for text in own:
            texts[text] = unit((images[row] + 0.4 * random.normal(size=6))[None])[0]
    return examples, images, texts


@pytest.mark.parametrize("share", [0.5, 0.9, 1.0])
def test_mined_texts_and_images_are_those_of_brute_force(crowd, share):
    examples, images, texts = crowd
    found = mine(examples, images, texts, MiningSettings(texts=4, images=3, share=share, depth=200))
    scores = images @ texts.T
    captions = [set(examples.captions[row].tolist()) for row in range(60)]
    used = set().union(*captions)
    for row in range(60):
        group = [other for other in range(60) if examples.groups[other] == examples.groups[row]]
        own = set().union(*(captions[other] for other in group))
        positive = max(scores[row, text] for text in captions[row])
        hard = [t for t in used - own if scores[row, t] <= positive - (1 - share) * abs(positive)]
        expected = sorted(hard, key=lambda text: -scores[row, text])[:4]
        assert [text for text in found.texts[row].tolist() if text >= 0] == expected
        for text, owner in zip(found.texts[row], found.owners[row], strict=True):
            assert (owner == -1) == (text == -1)
            assert text == -1 or text in captions[owner]

        def allowed(image, row=row, group=group):
            positives = {text: scores[row, text] for text in captions[row]}
            below = all(scores[image, t] <= s - (1 - share) * abs(s) for t, s in positives.items())
            return below and image not in group and not captions[image] & captions[row]

        near = sorted(
            filter(allowed, range(60)), key=lambda image: -max(scores[image, t] for t in captions[row])
        )
        assert [image for image in found.images[row].tolist() if image >= 0] == near[:3]


def test_a_false_negative_nearer_than_the_share_is_left_out():
    images = unit(np.array([[1, 0], [0.99, 0.1], [0, 1.0]]))
    texts = unit(np.array([[1, 0.05], [0.99, 0.12], [0.5, 1.0]]))
    examples = examples_of([[0], [1], [2]], 3)
    strict = mine(examples, images, texts, MiningSettings(texts=1, share=0.95))
    assert strict.texts[0].tolist() == [2], "text 1 says what picture 0 shows"
    assert mine(examples, images, texts, MiningSettings(texts=1, share=1.0)).texts[0].tolist() == [1]


def test_a_picture_with_the_same_caption_is_no_negative_however_it_scores():
    images = unit(np.array([[1, 0], [0.8, 0.6], [0.5, 0.9]]))
    texts = unit(np.array([[1, 0.0], [0.7, 0.7], [0.4, 0.9]]))
    examples = examples_of([[0], [0, 1], [2]], 3)
    found = mine(examples, images, texts, MiningSettings(texts=1, images=1))
    assert found.images[0].tolist() == [2]
    assert found.texts[0].tolist() == [1], "but the other caption of that picture may be one"


def test_mining_is_due_every_so_many_steps_but_not_before_the_first():
    assert [step for step in range(10) if MiningSettings(every=3).due(step)] == [3, 6, 9]
    assert not any(MiningSettings(every=0).due(step) for step in range(10))


@pytest.mark.parametrize("threshold", [0.3, 0.8, 0.999])
def test_near_duplicates_are_all_pairs_at_the_threshold_or_above(threshold):
    images = unit(np.random.default_rng(1).normal(size=(80, 3)))
    images[5] = images[6] = images[7]
    found = near_duplicates(images, threshold, most=80)
    scores = images @ images.T
    for row in range(80):
        expected = [other for other in range(80) if other != row and scores[row, other] >= threshold]
        assert found.others[row].tolist() == expected
    assert found.crowded == 0
    assert found.pairs == (np.triu(scores >= threshold, 1)).sum()


def test_a_row_with_more_near_duplicates_than_are_looked_at_is_counted():
    images = unit(np.ones((10, 4)) + 0.001 * np.random.default_rng(0).normal(size=(10, 4)))
    assert near_duplicates(images, 0.9, most=3).crowded == 10
    assert near_duplicates(images, 0.9, most=9).crowded == 0


def test_ignored_pairs_are_equal_captions_and_near_duplicates_but_never_positives():
    examples = examples_of([[0, 1], [1], [2], [3], [4]], 6, negatives=[[], [0, 5], [], [], []])
    examples = replace(examples, groups=np.array([0, 1, 2, 3, 3]))
    alike = near_duplicates(unit(np.array([[1, 0], [0, 1], [1, 0.01], [0.01, 1], [0.02, 1]])), 0.99)
    image_rows = torch.tensor([0, 1, 2, 3, 4])
    text_rows = torch.tensor([0, 1, 2, 3, 4, 0, -1, -1])
    numbers = torch.tensor([0, 1, 2, 3, 4, 1, 0, 5])
    seen = IgnoredPairs(examples, alike).mask(image_rows, text_rows, numbers)
    pairs = {(0, 2), (2, 0), (1, 3), (3, 1), (1, 4), (4, 1)}
    for i, row in enumerate(image_rows.tolist()):
        for j, (owner, number) in enumerate(zip(text_rows.tolist(), numbers.tolist(), strict=True)):
            same_group = owner >= 0 and examples.groups[row] == examples.groups[owner]
            expected = not same_group and (number in examples.captions[row] or (row, owner) in pairs)
            assert bool(seen[i, j]) == expected, (row, owner, number)
    assert seen.any()
    words_only = IgnoredPairs(examples).mask(image_rows, text_rows, numbers)
    assert bool(words_only[0, 1])
    assert not words_only[2, 0]
