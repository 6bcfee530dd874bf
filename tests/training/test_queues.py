"""Queues of past embeddings against a list that remembers everything."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from crossmodal.errors import TrainingError
from training.losses import LossSettings, Relation, Temperature, make_loss
from training.negatives.queues import PairQueues, Queue, QueueSettings


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
    assert (relation.asking_images, relation.asking_texts) == (2, 3)
    assert relation.positive[:2].nonzero().tolist() == [[0, 0], [0, 4], [1, 1], [1, 2]]
    assert relation.positive[:, :3].nonzero().tolist() == [[0, 0], [1, 1], [1, 2], [3, 0]]
    assert relation.ignored.nonzero().tolist() == [[0, 1]]


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
        assert relation.positive.shape == (len(images), len(texts))
        queues.push(unit(2, step), unit(2, step + 50), groups, groups)


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
