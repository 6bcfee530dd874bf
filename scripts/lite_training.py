"""How the heads of `lite` are trained, for `train_lite.py`: on what the frozen towers made of pairs.

Each net of the image tower has members, pairs of heads alike but for their seed, which become one: their
corrections are averaged, which is one wider image head, and residuals are linear, so their mean is one text
head. Last, a part of what all training pairs have in common is found, which the heads take off.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from lite_features import PINNED, embed_texts, kept, pinned, see
from lite_pairs import DRAWS, Pair, draw
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional

from crossmodal.encoders.lite import model
from crossmodal.encoders.lite.settings import NETS

TRUST = 0.7
"""Less than the encoder's own, so that drawings which the tower classifies with certainty teach, too."""

COMMON = 0.5
"""The part of the mean embedding that is taken off."""


@dataclass(frozen=True, slots=True)
class Heads:
    """What is trained: an image head for one net, a text head, and the temperature, a logarithm."""

    image: model.ImagePart
    text: model.TextHead
    scale: Tensor


@dataclass(frozen=True, slots=True)
class PairSet:
    """Pairs of one kind, in how many views each picture is seen, and how often an epoch draws it."""

    pairs: Sequence[Pair]
    views: int
    share: float


@dataclass(frozen=True, slots=True)
class Corpus:
    """N pictures as each net saw them, S views in all, and what an epoch draws from.

    ``seen``: (S, C) by the name of the net; ``first``, ``views``: (N,) where a picture's views begin, the
    plain one first, and how many they are; ``shares``: (N,); ``groups``: (N,) numbers; ``texts``: (T, DIM);
    ``draws``: (N, DRAWS) rows of ``texts``.
    """

    seen: Mapping[str, Tensor]
    first: Tensor
    views: Tensor
    shares: Tensor
    groups: Tensor
    texts: Tensor
    draws: Tensor

    def epoch(self, batch: int) -> Iterator[Tensor]:
        """Give batches of rows, each row as often as its share says, by chance where that is a fraction."""
        times = (self.shares + torch.rand(len(self.shares))).floor().long()
        rows = torch.arange(len(times)).repeat_interleave(times)
        yield from rows[torch.randperm(len(rows))].split(batch)

    def steps(self, batch: int) -> int:
        """Give the batches of an epoch, or one more, since chance has a part in it."""
        return math.ceil(float(self.shares.sum()) / batch) + 1


def look(sets: Sequence[PairSet], cache: Path) -> Corpus:
    """Run all views and texts of the pairs through the towers, or take what the cache has of them."""
    pairs = [pair for one in sets for pair in one.pairs]
    rows = {text: row for row, text in enumerate(dict.fromkeys(t for pair in pairs for _, t in pair.texts))}
    numbers = {group: number for number, group in enumerate(dict.fromkeys(pair.group for pair in pairs))}
    views = torch.tensor([one.views for one in sets for _ in one.pairs])
    return Corpus(
        seen={net: torch.cat([look_at(net, one, cache).flatten(0, 1) for one in sets]) for net in NETS},
        first=views.cumsum(0) - views,
        views=views,
        shares=torch.tensor([one.share for one in sets for _ in one.pairs]),
        groups=torch.tensor([numbers[pair.group] for pair in pairs]),
        texts=kept(cache, "texts", PINNED, [text.encode() for text in rows], lambda: embed_texts(list(rows))),
        draws=torch.tensor([[rows[text] for text in draw(pair.texts)] for pair in pairs]),
    )


def look_at(net: str, one: PairSet, cache: Path) -> Tensor:
    """Give what a net sees in each view of a set's pictures: (N, views, C)."""
    images = [pair.image for pair in one.pairs]
    return kept(cache, f"views{one.views}", pinned(net), images, lambda: see(net, images, one.views))


def new_heads(corpus: Corpus, net: str, classes: Tensor, hidden: int) -> Heads:
    """Make heads that begin at the label mapping: a small correction, and no residual."""
    image = model.ImagePart(model.FEATURES[net], hidden, dropout=0.4, trust=TRUST)
    text = model.TextHead()
    features = corpus.seen[net][:, : -model.CLASSES]
    image.class_texts.copy_(classes)
    image.centre.copy_(features.mean(0))
    image.spread.copy_(features.std(0).clamp(min=0.02))
    with torch.no_grad():
        image.narrow.weight.mul_(0.3)
        for parameter in (image.narrow.bias, text.shift.weight, text.shift.bias):
            parameter.zero_()
    return Heads(image, text, nn.Parameter(torch.tensor(math.log(14.0))))


def train(
    corpus: Corpus, net: str, classes: Tensor, *, hidden: int, epochs: int, batch: int, seed: int
) -> Heads:
    """Train one pair of heads, on a random view and a random text of each picture drawn in each epoch."""
    torch.manual_seed(seed)
    heads = new_heads(corpus, net, classes, hidden)
    image, text, scale = heads.image, heads.text, heads.scale
    optimiser = torch.optim.AdamW(
        [
            {"params": list(image.parameters()), "lr": 1e-3, "weight_decay": 0.1},
            {"params": list(text.parameters()), "lr": 3e-4, "weight_decay": 0.1},
            {"params": [scale], "lr": 3e-3, "weight_decay": 0.0},
        ]
    )
    rates = [group["lr"] for group in optimiser.param_groups]
    steps = epochs * corpus.steps(batch)
    pace = torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, total_steps=steps, pct_start=0.05)
    for _ in track(range(epochs), f"heads over {net}, seed {seed}"):
        for rows in corpus.epoch(batch):
            seen, drawn = draw_batch(corpus, net, rows)
            alike = equal(corpus.groups[rows]) | equal(drawn)
            with torch.autocast("cpu", torch.bfloat16):
                correction = image.correct(seen[:, : -model.CLASSES])
            shown = image.add(correction.float(), seen[:, -model.CLASSES :])
            loss = info_nce(shown, text(corpus.texts[drawn]), alike, scale)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            pace.step()
    return Heads(image.eval(), text.eval(), scale)


def draw_batch(corpus: Corpus, net: str, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Draw a view and a text (its row) each; the plain view comes a little more often."""
    views = (torch.rand(rows.shape) * corpus.views[rows]).long().masked_fill(torch.rand(rows.shape) < 0.2, 0)
    drawn = corpus.draws[rows, torch.randint(DRAWS, rows.shape)]
    return corpus.seen[net][corpus.first[rows] + views], drawn


def equal(numbers: Tensor) -> Tensor:
    """Say which of N numbers are equal: (N, N)."""
    return numbers[:, None] == numbers[None]


def info_nce(images: Tensor, texts: Tensor, alike: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE (Radford et al. 2021); pairs of the same group or text are no negatives."""
    scores = images @ texts.T * scale.exp().clamp(max=100.0)
    scores = scores.masked_fill(alike & ~torch.eye(len(alike), dtype=torch.bool), -torch.inf)
    right = torch.arange(len(alike))
    return (functional.cross_entropy(scores, right) + functional.cross_entropy(scores.T, right)) / 2


def merge(members: Mapping[str, Sequence[Heads]]) -> dict[str, Tensor]:
    """Give what ships of all members, by the twin's names; nothing is taken off yet."""
    state = {
        f"image.head.parts.{net}.{name}": tensor
        for net, heads in members.items()
        for name, tensor in widened([each.image for each in heads]).items()
    }
    every = [each for heads in members.values() for each in heads]
    for name in every[0].text.state_dict():
        state[f"text.head.{name}"] = torch.stack([each.text.state_dict()[name] for each in every]).mean(0)
    state["image.head.origin"] = torch.zeros_like(state["text.head.origin"])
    state["logit_scale"] = torch.stack([each.scale.detach() for each in every]).mean()
    return state


def widened(parts: Sequence[model.ImagePart]) -> dict[str, Tensor]:
    """Give the one part whose correction is the mean of those given, which share centre and spread."""
    states = [part.state_dict() for part in parts]
    whole = dict(states[0])
    for name in ("widen.weight", "widen.bias"):
        whole[name] = torch.cat([state[name] for state in states])
    whole["narrow.weight"] = torch.cat([state["narrow.weight"] for state in states], dim=1) / len(states)
    whole["narrow.bias"] = torch.stack([state["narrow.bias"] for state in states]).mean(0)
    return whole


@torch.no_grad()
def origins(twin: model.LiteTwin, corpus: Corpus, count: int) -> dict[str, Tensor]:
    """Give what the heads are to take off, by the plain views and first texts of the first pairs."""
    seen = torch.cat([corpus.seen[net][corpus.first[:count]] for net in NETS], dim=1)
    texts = corpus.texts[corpus.draws[:count, 0]]
    return {
        "image.head.origin": COMMON * twin.project_image(seen).mean(0),
        "text.head.origin": COMMON * twin.project_text(texts).mean(0),
    }
