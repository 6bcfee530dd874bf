"""Losses against those of open_clip and pytorch-metric-learning, on one caption a picture and on classes."""

from collections.abc import Callable

import torch
from open_clip.loss import ClipLoss, SigLipLoss
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.losses import NTXentLoss, TripletMarginLoss
from pytorch_metric_learning.reducers import DoNothingReducer, MeanReducer
from torch import Tensor
from torch.nn import functional as F

from training.losses import LossSettings, Relation, Temperature, make_loss


def unit(rows: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows_of_noise = torch.randn(rows, 8, generator=generator, dtype=torch.float64)
    return F.normalize(rows_of_noise, dim=1).requires_grad_()


def ours(settings: LossSettings, images: Tensor, texts: Tensor, groups: Tensor, t: Temperature) -> Tensor:
    return make_loss(settings)(images, texts, Relation.from_groups(groups, groups), t)


def assert_same_loss_and_gradients(found: Tensor, expected: Tensor, *inputs: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    gradients = torch.autograd.grad(found, inputs, retain_graph=True)
    for ours_, theirs in zip(gradients, torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(ours_, theirs, rtol=1e-10, atol=1e-13)


def test_infonce_is_open_clips_clip_loss_with_one_caption_a_picture() -> None:
    images, texts = unit(12, 1), unit(12, 2)
    scale = torch.tensor(14.3, dtype=torch.float64, requires_grad=True)
    found = ours(LossSettings(), images, texts, torch.arange(12), Temperature(scale))
    assert_same_loss_and_gradients(found, ClipLoss()(images, texts, scale), images, texts, scale)


def test_smoothed_infonce_is_torchs_smoothed_cross_entropy_with_one_caption_a_picture() -> None:
    images, texts = unit(12, 1), unit(12, 2)
    scale = torch.tensor(14.3, dtype=torch.float64, requires_grad=True)
    found = ours(LossSettings(label_smoothing=0.2), images, texts, torch.arange(12), Temperature(scale))
    logits = scale * images @ texts.T
    ways = [F.cross_entropy(m, torch.arange(12), label_smoothing=0.2) for m in (logits, logits.T)]
    assert_same_loss_and_gradients(found, sum(ways) / 2, images, texts, scale)


def test_siglip_is_open_clips_siglip_loss_with_one_caption_a_picture() -> None:
    images, texts = unit(12, 1), unit(12, 2)
    scale = torch.tensor(10.0, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(-9.5, dtype=torch.float64, requires_grad=True)
    found = ours(LossSettings(kind="siglip"), images, texts, torch.arange(12), Temperature(scale, bias))
    assert_same_loss_and_gradients(
        found, SigLipLoss()(images, texts, scale, bias), images, texts, scale, bias
    )


# -- classes: the library normalises once more, so gradients are compared before it -----------------------

GROUPS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2])  # three each: means over pairs and over askers agree
SAME_GROUPS = GROUPS.clone()  # the library takes one and the same tensor for a set compared with itself


def test_infonce_over_groups_is_the_nt_xent_of_pytorch_metric_learning() -> None:
    raw = unit(9, 1), unit(9, 2)
    images, texts = (F.normalize(side, dim=1) for side in raw)
    temperature = Temperature(torch.tensor(10.0, dtype=torch.float64))
    found = ours(LossSettings(), images, texts, GROUPS, temperature)
    theirs = both_ways(NTXentLoss(temperature=0.1, reducer=MeanReducer()), images, texts)
    assert_same_loss_and_gradients(found, theirs, *raw)


def test_mean_hinges_are_the_triplet_margin_loss_of_pytorch_metric_learning() -> None:
    raw = unit(9, 1), unit(9, 2)
    images, texts = (F.normalize(side, dim=1) for side in raw)
    settings = LossSettings(kind="triplet", margin=0.2, mean_hinge_steps=1)
    found = ours(settings, images, texts, GROUPS, Temperature(torch.tensor(1.0)))
    theirs = TripletMarginLoss(margin=0.2, distance=CosineSimilarity(), reducer=MeanReducer())
    assert_same_loss_and_gradients(found, both_ways(theirs, images, texts), *raw)


def test_the_hardest_hinge_is_the_largest_of_each_positives_triplets_in_pytorch_metric_learning() -> None:
    raw = unit(9, 1), unit(9, 2)
    images, texts = (F.normalize(side, dim=1) for side in raw)
    found = ours(LossSettings(kind="triplet"), images, texts, GROUPS, Temperature(torch.tensor(1.0)))
    theirs = TripletMarginLoss(margin=0.2, distance=CosineSimilarity(), reducer=DoNothingReducer())

    def hardest(anchors: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor) -> Tensor:
        triplets = theirs(anchors, labels, ref_emb=ref_emb, ref_labels=ref_labels)["loss"]
        rows, positives, _ = triplets["indices"]
        largest = torch.full((81,), -1.0, dtype=torch.float64)
        largest = largest.scatter_reduce(0, rows * 9 + positives, triplets["losses"], "amax")
        return largest[largest >= 0].mean()

    assert_same_loss_and_gradients(found, both_ways(hardest, images, texts), *raw)


def both_ways(loss: Callable[..., Tensor], images: Tensor, texts: Tensor) -> Tensor:
    """Ask a loss of the library both ways."""
    to_texts = loss(images, GROUPS, ref_emb=texts, ref_labels=SAME_GROUPS)
    return (to_texts + loss(texts, GROUPS, ref_emb=images, ref_labels=SAME_GROUPS)) / 2
