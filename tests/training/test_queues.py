"""Queues of past embeddings against a list that remembers everything."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from crossmodal.errors import TrainingError
from training.data.examples import Examples, Ragged
from training.losses import LossSettings, Relation, Temperature, make_loss
from training.negatives.ignored import IgnoredPairs
from training.negatives.near_duplicates import NearDuplicates
from training.negatives.queues import Origins, PairQueues, Queue, QueueSettings


def unit(rows: int, seed: int, dim: int = 4) -> Tensor:
    return F.normalize(torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def contents(queue: Queue) -> list[tuple[float, ...]]:
    rows = torch.cat([queue.embeddings, queue.groups[:, None].float()], dim=1)
    return sorted(map(tuple, rows.tolist()))


@pytest.mark.parametrize("pushes", [[3, 2], [4, 4, 4], [7], [10], [25], [6, 25, 3], [0, 5]])
def test_a_queue_holds_the_last_that_were_pushed(pushes: list[int]) -> None:
    queue, everything = Queue(10, 4), []
    for turn, count in enumerate(pushes):
        embeddings, groups = unit(count, turn), torch.arange(count) + 100 * turn
        queue.push(embeddings, groups)
        everything += [(*row, float(g)) for row, g in zip(embeddings.tolist(), groups.tolist(), strict=True)]
        assert contents(queue) == sorted(map(tuple, everything[-10:]))


def filled(size: int = 6) -> PairQueues:
    queues = PairQueues(QueueSettings(size=size), 4)
    queues.push(unit(4, 1), unit(5, 2), torch.tensor([0, 1, 2, 3]), torch.tensor([0, 1, 2, 9, -1]))
    return queues


def test_past_texts_answer_pictures_and_past_pictures_texts_but_never_ask() -> None:
    images, texts = unit(2, 3).requires_grad_(), unit(3, 4).requires_grad_()
    image_groups, text_groups = torch.tensor([1, 7]), torch.tensor([1, 7, 7])
    ignored = torch.tensor([[False, True, False], [False, False, False]])
    found = filled().relate(images, texts, image_groups, text_groups, step=0, ignored=ignored)
    all_images, all_texts, relation = found
    torch.testing.assert_close(all_images, torch.cat([images, unit(4, 1)]))
    torch.testing.assert_close(all_texts, torch.cat([texts, unit(5, 2)]))
    assert relation.positive.tolist() == [[True, False, False], [False, True, True]]
    assert relation.ignored.tolist() == ignored.tolist()
    assert relation.past_texts.positive.tolist() == [[False, True, False, False, False], [False] * 5]
    assert relation.past_images.positive.tolist() == [[False] * 3, [True, False, False], *[[False] * 3] * 2]
    assert not relation.past_texts.ignored.any()
    assert not relation.past_images.ignored.any()


def test_the_loss_with_queues_is_that_of_each_question_over_new_and_past() -> None:
    images, texts = unit(2, 3).requires_grad_(), unit(3, 4).requires_grad_()
    image_groups, text_groups = torch.tensor([1, 7]), torch.tensor([1, 7, 7])
    temperature = Temperature(torch.tensor(5.0))
    loss = make_loss(LossSettings())
    all_images, all_texts, relation = filled().relate(images, texts, image_groups, text_groups, step=0)
    found = loss(all_images, all_texts, relation, temperature)
    ways = []
    for asking, groups, answering, other_groups in (
        (images, image_groups, all_texts, torch.tensor([1, 7, 7, 0, 1, 2, 9, -1])),
        (texts, text_groups, all_images, torch.tensor([1, 7, 0, 1, 2, 3])),
    ):
        logits, costs = 5.0 * asking @ answering.T, []
        for row, group in zip(logits, groups, strict=True):
            rivals = row[other_groups != group].exp().sum()
            hits = row[other_groups == group]
            costs.append((torch.log(hits.exp() + rivals) - hits).mean())
        ways.append(torch.stack(costs).mean())
    expected = sum(ways) / 2
    torch.testing.assert_close(found, expected)
    gradients = torch.autograd.grad(found, [images, texts])
    torch.testing.assert_close(list(gradients), list(torch.autograd.grad(expected, [images, texts])))


def test_pushing_after_the_loss_does_not_disturb_its_gradient() -> None:
    queues, images, texts = filled(), unit(2, 3).requires_grad_(), unit(2, 4).requires_grad_()
    groups = torch.tensor([1, 7])
    all_images, all_texts, relation = queues.relate(images, texts, groups, groups, step=0)
    loss = make_loss(LossSettings())(all_images, all_texts, relation, Temperature(torch.tensor(5.0)))
    (before,) = torch.autograd.grad(loss, [images], retain_graph=True)
    queues.push(images, texts, groups, groups)
    assert not queues.images.embeddings.requires_grad
    torch.testing.assert_close(torch.autograd.grad(loss, [images])[0], before, rtol=0, atol=0)


def test_before_its_start_a_queue_only_listens() -> None:
    queues = PairQueues(QueueSettings(size=6, start=3), 4)
    groups = torch.tensor([0, 1])
    for step in range(5):
        images, texts, relation = queues.relate(unit(2, 5), unit(2, 6), groups, groups, step=step)
        assert (len(images), len(texts)) == ((2, 2) if step < 3 else (8, 8))
        assert relation.positive.shape == (2, 2)
        assert (relation.past_texts is None) == (relation.past_images is None) == (step < 3)
        queues.push(unit(2, step), unit(2, step + 50), groups, groups)


# -- what must not count as a negative of the past --------------------------------------------------------

CAPTIONS = [[0, 1], [1, 2], [3], [0, 4], [5, 6], [6], [7], [8, 9, 3]]
GROUPS = [0, 1, 2, 3, 4, 4, 5, 6]
ALIKE = {(0, 2), (2, 0), (4, 7), (7, 4), (5, 4), (4, 5)}


def a_world() -> IgnoredPairs:
    """Rules over eight examples: some captions are repeated, some pictures alike, one group has two rows."""
    others = [[b for a, b in sorted(ALIKE) if a == row] for row in range(len(CAPTIONS))]
    examples = Examples(
        spec="made up",
        keys=list("abcdefgh"),
        pictures=[None] * 8,
        uris=[""] * 8,
        texts=[f"text {number}" for number in range(11)],
        captions=Ragged.of(CAPTIONS),
        negatives=Ragged.of([[]] * 8),
        groups=np.array(GROUPS),
    )
    return IgnoredPairs(examples, NearDuplicates(others=Ragged.of(others), crowded=0))


@dataclass(frozen=True)
class Drawn:
    """A batch drawn by chance, some of its texts being of none."""

    images: Tensor
    texts: Tensor
    origins: Origins

    @classmethod
    def by(cls, seed: int, dim: int = 4) -> "Drawn":
        chance = np.random.default_rng(seed)
        image_rows = chance.integers(8, size=3)
        text_rows = np.concatenate([image_rows, chance.integers(-1, 8, size=2)])
        numbers = [chance.choice(CAPTIONS[r]) if r >= 0 else chance.integers(11) for r in text_rows]
        origins = tuple(torch.tensor(np.array(n, np.int64)) for n in (image_rows, text_rows, numbers))
        return cls(unit(3, seed, dim), unit(5, seed + 1000, dim), origins)

    @property
    def groups(self) -> tuple[Tensor, Tensor]:
        rows = torch.tensor([*GROUPS, -1])
        return rows[self.origins[0]], rows[self.origins[1]]


def positive(image: int, text: tuple[int, int]) -> bool:
    return text[0] >= 0 and GROUPS[image] == GROUPS[text[0]]


def ignored(image: int, text: tuple[int, int]) -> bool:
    return not positive(image, text) and (text[1] in CAPTIONS[image] or (image, text[0]) in ALIKE)


def one_way(asking: list[Any], answering: list[Any], rule: Callable[..., bool], masked: Callable[..., bool]):
    """InfoNCE at scale 5, one asker at a time; both are lists of embeddings and what they are."""
    costs = []
    for embedding, who in asking:
        scores = [(torch.exp(5 * embedding @ other), what) for other, what in answering]
        hits = [score for score, what in scores if rule(who, what)]
        rivals = sum(score for score, what in scores if not rule(who, what) and not masked(who, what))
        if hits:
            costs.append(sum(torch.log((hit + rivals) / hit) for hit in hits) / len(hits))
    return sum(costs) / len(costs)


def test_losses_over_many_steps_are_those_of_lists_that_remember_whose_everything_is() -> None:
    world, size = a_world(), 11
    queues = PairQueues(QueueSettings(size=size, start=2), 4, mask=world.mask)
    past_images, past_texts = deque(maxlen=size), deque(maxlen=size)
    loss, met = make_loss(LossSettings()), 0
    for step in range(9):
        batch = Drawn.by(step)
        images, texts = batch.images.requires_grad_(), batch.texts.requires_grad_()
        origins, masked = batch.origins, world.mask(*batch.origins)
        new = queues.relate(images, texts, *batch.groups, step=step, ignored=masked, origins=origins)
        found = loss(*new, Temperature(torch.tensor(5.0)))

        image_rows, *of_texts = (numbers.tolist() for numbers in origins)
        new_images = list(zip(images, image_rows, strict=True))
        new_texts = list(zip(texts, zip(*of_texts, strict=True), strict=True))
        all_images, all_texts = list(new_images), list(new_texts)
        if step >= 2:
            all_images, all_texts = [*new_images, *past_images], [*new_texts, *past_texts]
            met += sum(ignored(image, text) for _, image in new_images for _, text in past_texts)
            met += sum(ignored(image, text) for _, image in past_images for _, text in new_texts)
        to_texts = one_way(new_images, all_texts, positive, ignored)
        to_images = one_way(new_texts, all_images, lambda t, i: positive(i, t), lambda t, i: ignored(i, t))
        expected = (to_texts + to_images) / 2
        torch.testing.assert_close(found, expected)
        ours = torch.autograd.grad(found, [images, texts])
        torch.testing.assert_close(list(ours), list(torch.autograd.grad(expected, [images, texts])))

        queues.push(images, texts, *batch.groups, origins=origins)
        past_images.extend((embedding.detach(), row) for embedding, row in new_images)
        past_texts.extend((embedding.detach(), what) for embedding, what in new_texts)
    assert met > 20


def test_queues_with_a_mask_want_origins() -> None:
    queues, batch = PairQueues(QueueSettings(size=6), 4, mask=a_world().mask), Drawn.by(0)
    with pytest.raises(ValueError, match="want the origins of the batch"):
        queues.relate(batch.images, batch.texts, *batch.groups, step=0)
    with pytest.raises(ValueError, match="want the origins of the batch"):
        queues.push(batch.images, batch.texts, *batch.groups)


def test_queues_with_a_mask_start_empty() -> None:
    queues, batch = PairQueues(QueueSettings(size=6), 4, mask=a_world().mask), Drawn.by(0)
    images, texts, relation = queues.relate(
        batch.images, batch.texts, *batch.groups, step=0, origins=batch.origins
    )
    assert (len(images), len(texts)) == (3, 5)
    assert relation.past_texts.ignored.shape == (3, 0)
    assert relation.past_images.ignored.shape == (0, 5)


# -- resume -----------------------------------------------------------------------------------------------


def test_a_restored_queue_goes_on_as_the_saved_one() -> None:
    saved, restored = filled(), PairQueues(QueueSettings(size=6), 4)
    restored.load_state({name: tensor.clone() for name, tensor in saved.state().items()})
    for turn in range(3):
        for queues in (saved, restored):
            queues.push(unit(4, turn), unit(4, turn + 9), torch.arange(4), torch.arange(4))
        for side in ("images", "texts"):
            ours, theirs = getattr(saved, side), getattr(restored, side)
            assert torch.equal(ours.embeddings, theirs.embeddings)
            assert torch.equal(ours.groups, theirs.groups)


def trained(steps: range, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Train a matrix with queues, from the start or from a state; give the state."""
    world, matrix = a_world(), torch.eye(4).requires_grad_()
    queues, loss = PairQueues(QueueSettings(size=7, start=1), 4, mask=world.mask), make_loss(LossSettings())
    if state is not None:
        matrix = state["matrix"].clone().requires_grad_()
        queues.load_state({name: tensor for name, tensor in state.items() if name != "matrix"})
    for step in steps:
        batch = Drawn.by(step)
        images, texts = F.normalize(batch.images @ matrix, dim=1), batch.texts
        origins, masked = batch.origins, world.mask(*batch.origins)
        new = queues.relate(images, texts, *batch.groups, step=step, ignored=masked, origins=origins)
        (gradient,) = torch.autograd.grad(loss(*new, Temperature(torch.tensor(5.0))), [matrix])
        queues.push(images, texts, *batch.groups, origins=origins)
        matrix = (matrix - 0.1 * gradient).detach().requires_grad_()
    return {"matrix": matrix.detach(), **queues.state()}


@pytest.mark.parametrize("stop", [1, 2, 4, 7])
def test_training_that_was_interrupted_ends_to_the_last_bit_as_if_it_had_not_been(
    stop: int, tmp_path: Path
) -> None:
    save_file(trained(range(stop)), tmp_path / "state.safetensors")
    resumed = trained(range(stop, 8), load_file(tmp_path / "state.safetensors"))
    whole = trained(range(8))
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    without_labels = {**load_file(tmp_path / "state.safetensors")}
    for side in ("images", "texts"):
        without_labels[f"{side}.labels"] = torch.zeros_like(without_labels[f"{side}.labels"])
    assert not torch.equal(trained(range(stop, 8), without_labels)["matrix"], whole["matrix"])


def test_a_state_is_that_of_its_moment() -> None:
    queues = filled()
    state = queues.state()
    before = {name: tensor.clone() for name, tensor in state.items()}
    queues.push(unit(6, 7), unit(6, 8), torch.arange(6), torch.arange(6))
    assert all(torch.equal(state[name], before[name]) for name in before)


@pytest.mark.parametrize(("size", "dim"), [(3, 4), (6, 5)])
def test_the_state_of_another_queue_is_refused(size: int, dim: int) -> None:
    other = PairQueues(QueueSettings(size=size), dim)
    with pytest.raises(TrainingError, match="resume with the recipe that the run began with"):
        other.load_state(filled().state())


def test_the_state_of_queues_that_knew_no_origins_is_refused_by_those_that_do() -> None:
    masked = PairQueues(QueueSettings(size=6), 4, mask=a_world().mask)
    with pytest.raises(TrainingError, match=r"has labels of \(4, 1\), and \(4, 2\) are expected"):
        masked.load_state(filled().state())


def test_settings_refuse_a_negative_size() -> None:
    with pytest.raises(ValueError, match="size is 0 or more, not -1"):
        QueueSettings(size=-1)


def test_queues_of_size_nought_change_nothing() -> None:
    queues, groups = PairQueues(QueueSettings(), 4), torch.tensor([0, 1])
    queues.push(unit(2, 1), unit(2, 2), groups, groups)
    images, texts, relation = queues.relate(unit(2, 3), unit(2, 4), groups, groups, step=9)
    loss = make_loss(LossSettings())
    t = Temperature(torch.tensor(5.0))
    plain = loss(unit(2, 3), unit(2, 4), Relation.from_groups(groups, groups), t)
    torch.testing.assert_close(loss(images, texts, relation, t), plain, rtol=0, atol=0)
