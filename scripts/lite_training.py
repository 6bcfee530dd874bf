"""How the heads of `lite` are trained, for `train_lite.py`: on what the frozen towers made of pairs.

Several pairs of heads, alike but for their seed, become one: corrections are averaged, which is one wider
image head, and residuals are linear, so their mean is one text head.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from lite_features import embed_texts, kept, see
from lite_pairs import DRAWS, Pair, draw
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional

from crossmodal.encoders.lite import model

TRUST = 0.7
"""Less than the encoder's own, so that drawings which the tower classifies with certainty teach, too."""

Heads = tuple[model.ImageHead, model.TextHead]


@dataclass(frozen=True, slots=True)
class PairSet:
    """Pairs of one kind, in how many views each picture is seen, and how often an epoch draws it."""

    pairs: Sequence[Pair]
    views: int
    share: float


@dataclass(frozen=True, slots=True)
class Corpus:
    """N pictures as the tower saw them, S views in all, and what an epoch draws from.

    ``seen``: (S, FEATURES + CLASSES); ``first``, ``views``: (N,) where a picture's views begin, the plain one
    first, and how many they are; ``shares``: (N,); ``groups``: (N,) numbers; ``texts``: (T, DIM); ``draws``:
    (N, DRAWS) rows of ``texts``.
    """

    seen: Tensor
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
        seen=torch.cat([look_at(one, cache).flatten(0, 1) for one in sets]),
        first=views.cumsum(0) - views,
        views=views,
        shares=torch.tensor([one.share for one in sets for _ in one.pairs]),
        groups=torch.tensor([numbers[pair.group] for pair in pairs]),
        texts=kept(cache, "texts", [text.encode() for text in rows], lambda: embed_texts(list(rows))),
        draws=torch.tensor([[rows[text] for text in draw(pair.texts)] for pair in pairs]),
    )


def look_at(one: PairSet, cache: Path) -> Tensor:
    """Give what the tower sees in each view of a set's pictures: (N, views, FEATURES + CLASSES)."""
    images = [pair.image for pair in one.pairs]
    return kept(cache, f"views{one.views}", images, lambda: see(images, one.views))


def new_heads(corpus: Corpus, classes: Tensor, hidden: int) -> Heads:
    """Make heads that begin at the label mapping: a small correction, and no residual."""
    image, text = model.ImageHead(hidden, dropout=0.4), model.TextHead()
    features = corpus.seen[:, : model.FEATURES]
    image.class_texts.copy_(classes)
    image.centre.copy_(features.mean(0))
    image.spread.copy_(features.std(0).clamp(min=0.02))
    with torch.no_grad():
        image.narrow.weight.mul_(0.3)
        for parameter in (image.narrow.bias, text.shift.weight, text.shift.bias):
            parameter.zero_()
    return image, text


def train(corpus: Corpus, classes: Tensor, *, hidden: int, epochs: int, batch: int, seed: int) -> Heads:
    """Train one pair of heads, on a random view and a random text of each picture drawn in each epoch."""
    torch.manual_seed(seed)
    image, text = new_heads(corpus, classes, hidden)
    scale = nn.Parameter(torch.tensor(math.log(14.0)))
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
    for _ in track(range(epochs), f"heads of seed {seed}"):
        for rows in corpus.epoch(batch):
            features, logits, drawn = draw_batch(corpus, rows)
            alike = equal(corpus.groups[rows]) | equal(drawn)
            with torch.autocast("cpu", torch.bfloat16):
                correction = image.correct(features)
            shown = image.add(correction.float(), logits, TRUST)
            loss = info_nce(shown, text(corpus.texts[drawn]), alike, scale)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            pace.step()
    return image.eval(), text.eval()


def draw_batch(corpus: Corpus, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Draw a view (features, logits) and a text (its row) each; the plain view comes a little more often."""
    views = (torch.rand(rows.shape) * corpus.views[rows]).long().masked_fill(torch.rand(rows.shape) < 0.2, 0)
    seen = corpus.seen[corpus.first[rows] + views]
    features, logits = seen.split([model.FEATURES, model.CLASSES], dim=1)
    return features, logits, corpus.draws[rows, torch.randint(DRAWS, rows.shape)]


def equal(numbers: Tensor) -> Tensor:
    """Say which of N numbers are equal: (N, N)."""
    return numbers[:, None] == numbers[None]


def info_nce(images: Tensor, texts: Tensor, alike: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE (Radford et al. 2021); pairs of the same group or text are no negatives."""
    scores = images @ texts.T * scale.exp().clamp(max=100.0)
    scores = scores.masked_fill(alike & ~torch.eye(len(alike), dtype=torch.bool), -torch.inf)
    right = torch.arange(len(alike))
    return (functional.cross_entropy(scores, right) + functional.cross_entropy(scores.T, right)) / 2


def merge(heads: Sequence[Heads]) -> Heads:
    """Make one pair of heads whose correction and residual are the means of the given ones."""
    images, texts = zip(*heads, strict=True)
    state = images[0].state_dict()
    for name in ("widen.weight", "widen.bias"):
        state[name] = torch.cat([image.state_dict()[name] for image in images])
    state["narrow.weight"] = torch.cat([image.narrow.weight for image in images], dim=1) / len(images)
    state["narrow.bias"] = torch.stack([image.narrow.bias for image in images]).mean(0)
    image, text = model.ImageHead(len(state["widen.bias"])), model.TextHead()
    image.load_state_dict(state)
    text.load_state_dict(
        {k: torch.stack([t.state_dict()[k] for t in texts]).mean(0) for k in text.state_dict()}
    )
    return image.eval(), text.eval()
