"""Losses against loops in plain Python: groups, ignored pairs, extra negatives, rows that only answer."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from crossmodal.errors import TrainingError
from training.losses import LossSettings, Relation, Temperature, make_loss

IMAGE_GROUPS = [0, 1, 2, 2, 3, -1]
TEXT_GROUPS = [0, 0, 0, 1, 2, 5, 2, -1]
KINDS = {
    "infonce": LossSettings(),
    "infonce smoothed": LossSettings(label_smoothing=0.1),
    "infonce hard": LossSettings(hn_beta=0.5, hn_alpha=0.7),
    "infonce decoupled": LossSettings(hn_alpha=0.0),
    "siglip": LossSettings(kind="siglip"),
    "triplet": LossSettings(kind="triplet"),
    "triplet warming up": LossSettings(kind="triplet", mean_hinge_steps=10),
    "sum": LossSettings(kind="infonce+triplet", weights=(1.0, 0.3)),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def unit(rows: int, seed: int, dim: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, dim, generator=generator, dtype=torch.float64), dim=1)


def relation_of(images: list[int], texts: list[int], ignored: list[tuple[int, int]] = ()) -> Relation:
    masked = torch.zeros(len(images), len(texts), dtype=torch.bool)
    for place in ignored:
        masked[place] = True
    return Relation.from_groups(torch.tensor(images), torch.tensor(texts), masked)


def temperature_of(scale: float = 7.0, bias: float = -2.0) -> Temperature:
    return Temperature(torch.tensor(scale).double(), torch.tensor(bias).double())


# -- the same, one number at a time -----------------------------------------------------------------------


def cost_of_asker(kind: str, cosines: list[float], hits: list[int], rivals: list[int]) -> float:
    """What one asker costs, from its formula in the paper."""
    settings, t = KINDS[kind], temperature_of()
    scale, bias = float(t.scale), float(t.bias)
    costs = []
    for hit in hits:
        if kind.startswith("infonce"):
            weight = dict.fromkeys(rivals, 1.0)
            if settings.hn_beta:
                hardness = {n: math.exp(settings.hn_beta * scale * cosines[n]) for n in rivals}
                weight = {n: len(rivals) * hardness[n] / sum(hardness.values()) for n in rivals}
            below = settings.hn_alpha * math.exp(scale * cosines[hit])
            below += sum(weight[n] * math.exp(scale * cosines[n]) for n in rivals)
            eps, choices = settings.label_smoothing, [hit, *rivals]
            cost = -(1 - eps) * (scale * cosines[hit] - math.log(below))
            cost -= eps * sum(scale * cosines[c] - math.log(below) for c in choices) / len(choices)
            costs.append(cost if rivals else 0.0)
        elif kind.startswith("triplet"):
            hinges = [max(0.0, 0.2 + cosines[n] - cosines[hit]) for n in rivals] or [0.0]
            costs.append(sum(hinges) / len(hinges) if settings.mean_hinge_steps else max(hinges))
    if kind == "siglip":
        signs = {**dict.fromkeys(hits, 1), **dict.fromkeys(rivals, -1)}
        return sum(math.log1p(math.exp(-z * (scale * cosines[c] + bias))) for c, z in signs.items())
    return sum(costs) / len(costs)


def brute_force(
    kind: str, images: Tensor, texts: Tensor, relation: Relation, asking: tuple[int, int] | None = None
) -> float:
    """The loss where the first so many pictures and texts ask, and all answer."""
    if kind == "sum":
        parts = (brute_force(part, images, texts, relation, asking) for part in ("infonce", "triplet"))
        return sum(w * part for w, part in zip((1.0, 0.3), parts, strict=True))
    cosines = (images @ texts.T).tolist()
    positive, ignored = relation.positive.tolist(), relation.ignored.tolist()
    asking_images, asking_texts = len(images), len(texts)
    if asking is not None:
        asking_images, asking_texts = asking
    directions = []
    for turned, askers in ((False, asking_images), (True, asking_texts)):
        of = (lambda m: [list(row) for row in zip(*m, strict=True)]) if turned else (lambda m: m)
        costs = []
        for row, wanted, masked in list(zip(of(cosines), of(positive), of(ignored), strict=True))[:askers]:
            hits = [c for c, yes in enumerate(wanted) if yes]
            rivals = [c for c in range(len(row)) if not wanted[c] and not masked[c]]
            if hits:
                costs.append(cost_of_asker(kind, row, hits, rivals))
        directions.append(sum(costs) / len(costs) if costs else 0.0)
    return sum(directions) / 2


@every_kind
@pytest.mark.parametrize(
    "ignored", [[], [(0, 3), (1, 0), (4, 4), (5, 7), (2, 5)]], ids=["nothing ignored", "some ignored"]
)
def test_every_loss_equals_a_loop_over_groups_of_any_size(kind: str, ignored: list[tuple[int, int]]) -> None:
    images, texts = unit(len(IMAGE_GROUPS), 1), unit(len(TEXT_GROUPS), 2)
    relation = relation_of(IMAGE_GROUPS, TEXT_GROUPS, ignored)
    found = make_loss(KINDS[kind])(images, texts, relation, temperature_of())
    assert float(found) == pytest.approx(brute_force(kind, images, texts, relation), rel=1e-12)


def with_past(whole: Relation, images: int, texts: int) -> Relation:
    """Take all but the first so many pictures and texts for past ones."""

    def part(rows: slice, columns: slice) -> Relation:
        return Relation(positive=whole.positive[rows, columns], ignored=whole.ignored[rows, columns])

    new_images, new_texts = slice(images), slice(texts)
    return replace(
        part(new_images, new_texts),
        past_texts=part(new_images, slice(texts, None)),
        past_images=part(slice(images, None), new_texts),
    )


SOME_IGNORED = [(0, 3), (1, 0), (4, 4), (5, 7), (2, 5), (5, 1), (4, 3), (0, 5)]


@every_kind
@pytest.mark.parametrize("asking", [(3, 4), (6, 8), (1, 8), (6, 1)])
def test_what_is_past_answers_and_does_not_ask(kind: str, asking: tuple[int, int]) -> None:
    images, texts = unit(len(IMAGE_GROUPS), 1), unit(len(TEXT_GROUPS), 2)
    whole = relation_of(IMAGE_GROUPS, TEXT_GROUPS, SOME_IGNORED)
    found = make_loss(KINDS[kind])(images, texts, with_past(whole, *asking), temperature_of())
    assert float(found) == pytest.approx(brute_force(kind, images, texts, whole, asking), rel=1e-12)
    if asking != (6, 8):
        assert float(found) != pytest.approx(brute_force(kind, images, texts, whole), rel=1e-3)


def test_a_relation_to_the_past_of_another_batch_is_refused() -> None:
    whole = relation_of([0, 1], [0, 1, 2])
    with pytest.raises(ValueError, match=r"past_texts is \(2, Q\), got \(3, 4\)"):
        replace(whole, past_texts=relation_of([0, 1, 2], [0, 1, 2, 3]))
    with pytest.raises(ValueError, match=r"past_images is \(Q, 3\), got \(5, 2\)"):
        replace(whole, past_images=relation_of([0, 1, 2, 3, 4], [0, 1]))


@pytest.mark.parametrize("seed", range(5))
def test_mean_hinges_equal_a_loop_where_some_rivals_are_within_the_margin(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    groups = [torch.randint(-1, 6, (count,), generator=generator).tolist() for count in (20, 30)]
    images, texts = unit(20, seed + 10, dim=3), unit(30, seed + 20, dim=3)
    texts[:5] = texts[5:10]  # equal scores
    whole = relation_of(*groups, [(n, (7 * n) % 30) for n in range(20)])
    found = make_loss(KINDS["triplet warming up"])(images, texts, with_past(whole, 8, 9), temperature_of())
    expected = brute_force("triplet warming up", images, texts, whole, (8, 9))
    assert float(found) == pytest.approx(expected, rel=1e-12)
    assert expected > 0


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "infonce hard"])
@pytest.mark.parametrize("asking", [(6, 8), (3, 4)], ids=["all ask", "some are past"])
def test_the_gradient_is_the_numerical_one(kind: str, asking: tuple[int, int]) -> None:
    relation = with_past(relation_of(IMAGE_GROUPS, TEXT_GROUPS, [(0, 3), (4, 4), (2, 5)]), *asking)
    loss, t = make_loss(KINDS[kind]), temperature_of()

    def cost(images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        return loss(images, texts, relation, Temperature(scale, bias))

    inputs = [x.clone().requires_grad_() for x in (unit(6, 1), unit(8, 2), t.scale, t.bias)]
    assert torch.autograd.gradcheck(cost, inputs)


def test_the_gradient_of_hard_negatives_is_that_of_the_formula_at_fixed_weights() -> None:
    relation, t = relation_of(IMAGE_GROUPS, TEXT_GROUPS), temperature_of()
    images, texts = unit(6, 1).requires_grad_(), unit(8, 2).requires_grad_()
    make_loss(KINDS["infonce hard"])(images, texts, relation, t).backward()

    def one_way(logits: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        hardness = torch.exp(0.5 * logits).detach() * negative
        weights = negative.sum(1, keepdim=True) * hardness / hardness.sum(1, keepdim=True)
        below = (weights * logits.exp()).sum(1, keepdim=True) + 0.7 * logits.exp()
        rows = ((below.log() - logits) * positive).sum(1)[positive.any(1)]
        return (rows / positive.sum(1)[positive.any(1)]).mean()

    again = [images.detach().clone().requires_grad_(), texts.detach().clone().requires_grad_()]
    logits = t.scale * again[0] @ again[1].T
    positive, negative = relation.positive, relation.negative
    ((one_way(logits, positive, negative) + one_way(logits.T, positive.T, negative.T)) / 2).backward()
    torch.testing.assert_close(images.grad, again[0].grad, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(texts.grad, again[1].grad, rtol=1e-11, atol=1e-13)


# -- edges ------------------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize(
    ("image_groups", "text_groups"),
    [([0], [0]), ([0, 0, 0], [0, 0]), ([0, 1], [2, 3]), ([-1, -1], [-1, 4])],
    ids=["one pair", "one group", "no positives", "belonging to nothing"],
)
def test_a_batch_that_teaches_nothing_is_finite_with_a_finite_gradient(
    kind: str, image_groups: list[int], text_groups: list[int]
) -> None:
    images = unit(len(image_groups), 1).requires_grad_()
    texts = unit(len(text_groups), 2).requires_grad_()
    relation = relation_of(image_groups, text_groups)
    loss = make_loss(KINDS[kind])(images, texts, relation, temperature_of())
    loss.backward()
    if kind == "siglip" and 0 in image_groups and 0 in text_groups:  # it pulls positives without negatives
        assert loss.item() > 0
        assert images.grad.isfinite().all()
    else:
        assert loss.item() == 0
        assert not images.grad.any()
        assert not texts.grad.any()


@every_kind
@pytest.mark.parametrize("row", range(4))
@pytest.mark.parametrize("side", ["image", "text"])
def test_what_is_no_number_stays_none(kind: str, row: int, side: str) -> None:
    images, texts = unit(4, 1), unit(4, 2)
    (images if side == "image" else texts)[row, 2] = math.nan
    groups = list(range(4))
    assert make_loss(KINDS[kind])(images, texts, relation_of(groups, groups), temperature_of()).isnan()


@every_kind
def test_a_rival_that_is_no_number_is_not_passed_over(kind: str) -> None:
    images, texts = unit(4, 1), unit(9, 2)
    texts[6, 2] = math.nan
    relation = relation_of([0, 1, 2, 3], [0, 1, 2, 3, -1, -1, -1, -1, -1])
    assert make_loss(KINDS[kind])(images, texts, relation, temperature_of()).isnan()


@every_kind
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32_even_under_autocast(kind: str, dtype: torch.dtype) -> None:
    images, texts = unit(6, 1).to(dtype), unit(8, 2).to(dtype)
    relation, t = relation_of(IMAGE_GROUPS, TEXT_GROUPS), Temperature(torch.tensor(7.0), torch.tensor(-2.0))
    loss = make_loss(KINDS[kind])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(images, texts, relation, t)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(float(loss(images.double(), texts.double(), relation, t)), rel=1e-5)


def test_a_scale_above_the_cap_counts_as_the_cap_and_can_come_down() -> None:
    images, texts = unit(4, 1), unit(4, 2)
    relation = relation_of([0, 1, 2, 3], [0, 1, 2, 3])
    scale = torch.tensor(250.0, dtype=torch.float64, requires_grad=True)
    found = make_loss(LossSettings())(images, texts, relation, Temperature(scale))
    at_cap = torch.tensor(100.0, dtype=torch.float64, requires_grad=True)
    expected = make_loss(LossSettings())(images, texts, relation, Temperature(at_cap))
    found.backward()
    expected.backward()
    assert found.item() == expected.item()
    assert scale.grad == at_cap.grad != 0


def test_extreme_scores_neither_overflow_nor_vanish() -> None:
    images = F.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), dim=1).requires_grad_()
    relation = relation_of([0, 1], [1, 0])  # each finds the other's text and not its own
    loss = make_loss(LossSettings())(images, images.detach(), relation, Temperature(torch.tensor(100.0)))
    loss.backward()
    assert loss.item() == pytest.approx(100.0)
    assert images.grad.isfinite().all()


# -- settings ---------------------------------------------------------------------------------------------


def test_the_triplet_warms_up_with_mean_hinges_and_then_takes_the_hardest() -> None:
    images, texts = unit(6, 1), unit(8, 2)
    relation, t = relation_of(IMAGE_GROUPS, TEXT_GROUPS), temperature_of()
    loss = make_loss(LossSettings(kind="infonce + triplet", weights=(0.0, 1.0), mean_hinge_steps=3))
    costs = []
    for step in range(5):
        loss.at_step(step)
        costs.append(float(loss(images, texts, relation, t)))
    soft = brute_force("triplet warming up", images, texts, relation)
    hard = brute_force("triplet", images, texts, relation)
    assert costs == pytest.approx([soft] * 3 + [hard] * 2, rel=1e-12)
    loss.at_step(0)
    assert float(loss(images, texts, relation, t)) == pytest.approx(soft, rel=1e-12)


def test_an_unknown_loss_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        TrainingError, match=r"Unknown loss 'infonse'. Did you mean 'infonce'\? Known: infonce, "
    ):
        make_loss(LossSettings(kind="infonse+triplet"))


def test_siglip_without_a_bias_says_what_to_set() -> None:
    groups = [0, 1]
    with pytest.raises(TrainingError, match=r"set model\.bias to -10"):
        make_loss(LossSettings(kind="siglip"))(
            unit(2, 1), unit(2, 2), relation_of(groups, groups), Temperature(torch.tensor(10.0))
        )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "infonce+triplet", "weights": (1.0,)}, "names 2 losses and has 1 weights"),
        ({"margin": -0.1}, "margin is 0 or more, not -0.1"),
        ({"max_scale": math.nan}, "max_scale is 1 or more, not nan"),
        ({"label_smoothing": 1.0}, "from 0 to below 1, not 1.0"),
        ({"hn_alpha": 1.5}, "from 0 to 1, not 1.5"),
        ({"hn_beta": 0.5, "label_smoothing": 0.1}, "exclude one another"),
    ],
)
def test_settings_refuse_what_makes_no_sense(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LossSettings(**wrong)


def test_ignored_never_overlaps_positive_and_nothing_belongs_to_nothing() -> None:
    relation = relation_of([0, -1], [0, -1], list(itertools.product(range(2), range(2))))
    assert relation.positive.tolist() == [[True, False], [False, False]]
    assert relation.ignored.tolist() == [[False, True], [True, True]]
    assert not relation.negative.any()
