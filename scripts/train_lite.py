"""Train the projection heads of the encoder `lite`, and print their recall on the bundled sample.

python scripts/train_lite.py [--seed 0] [--cache FOLDER] [--output FILE]

Both towers stay frozen: `lite_features.py` runs every picture and text through them once, and what is
trained are small heads over that, in minutes on two cores. The pairs are the training split of the sample
(its titles, descriptions and keywords) and emoji with their names and keywords, which npm fetches the first
time.

Several pairs of heads, alike but for their seed, become one: corrections are averaged, which is one wider
image head, and residuals are linear, so their mean is one text head.
"""

import argparse
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from emoji_pairs import read_emoji
from lite_features import VIEWS, embed_classes, embed_texts, kept, see
from rich.progress import track
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from crossmodal.encoders.lite import model, weights
from crossmodal.encoders.runtime.cache import cache_root
from crossmodal.metrics.retrieval import evaluate_retrieval
from crossmodal.sources.sample import sample_path

DRAWS = 24  # texts that one is drawn from for a picture, each there as often as it weighs


@dataclass(frozen=True, slots=True)
class Pair:
    """A picture's file and the texts that may stand for it, each with a weight. A group is alike."""

    image: bytes
    texts: tuple[tuple[float, str], ...]
    group: str


def sample_pairs(split: str) -> list[Pair]:
    """Read a split of the sample. The title weighs most; it is the first text."""
    rows = pq.read_table(sample_path(), filters=[("split", "=", split)]).to_pylist()
    return [Pair(row["image"], sample_texts(row), plain(row["title"])) for row in rows]


def sample_texts(row: dict[str, Any]) -> tuple[tuple[float, str], ...]:
    """Weigh what one row of the sample says."""
    title, description = row["title"], row["description"]
    keywords = [word for word in row["keywords"] if len(word) > 2]
    texts = [(0.5, title)]
    if len(description) > 3 and plain(description) != plain(title):
        texts.append((0.1, description))
    if keywords:
        texts += [(0.1 / len(keywords), keyword) for keyword in keywords]
        texts += [(0.07, ", ".join(keywords)), (0.1, ", ".join([title, *keywords]))]
    return tuple(texts)


def emoji_pairs(folder: Path) -> list[Pair]:
    """Read the emoji; a flag is called by its country as often as by its name."""
    pairs = []
    for emoji in read_emoji(folder):
        texts = [(0.5, emoji.name)]
        if emoji.country:
            texts += [(0.4, emoji.country), (0.1, f"{emoji.country} flag")]
        elif emoji.keywords:
            texts += [(0.25 / len(emoji.keywords), keyword) for keyword in emoji.keywords]
            texts += [(0.2, ", ".join([emoji.name, *emoji.keywords[:6]]))]
        pairs.append(Pair(emoji.png, tuple(texts), plain(emoji.name)))
    return pairs


def plain(text: str) -> str:
    """Give a text's letters alone, so that `Apple 2` and `apple` are one group."""
    return re.sub(r"[\W\d_]+", " ", text.lower()).strip()


@dataclass(frozen=True, slots=True)
class Corpus:
    """Pairs as the towers saw them, N pictures in V views, and what an epoch draws from.

    ``seen``: (N, V, FEATURES + CLASSES), ``texts``: (T, DIM), ``draws``: (N, DRAWS) rows of ``texts``,
    ``groups``: (N,) numbers.
    """

    seen: Tensor
    texts: Tensor
    draws: Tensor
    groups: Tensor


def look(pairs: Sequence[Pair], cache: Path) -> Corpus:
    """Run all views and texts of the pairs through the towers, or take what the cache has of them."""
    rows = {text: row for row, text in enumerate(dict.fromkeys(t for pair in pairs for _, t in pair.texts))}
    numbers = {group: number for number, group in enumerate(dict.fromkeys(pair.group for pair in pairs))}
    images = [pair.image for pair in pairs]
    seen = kept(cache, "views", images, lambda: see(images, VIEWS))
    texts = kept(cache, "texts", [text.encode() for text in rows], lambda: embed_texts(list(rows)))
    draws = [[rows[text] for text in draw(pair.texts)] for pair in pairs]
    groups = [numbers[pair.group] for pair in pairs]
    return Corpus(seen, texts, torch.tensor(draws), torch.tensor(groups))


def draw(texts: Sequence[tuple[float, str]]) -> list[str]:
    """Give ``DRAWS`` texts, each as often as it weighs; rounding favours those that lose most by it."""
    total = sum(weight for weight, _ in texts)
    shares = [DRAWS * weight / total for weight, _ in texts]
    counts = [math.floor(share) for share in shares]
    for row in sorted(range(len(texts)), key=lambda i: counts[i] - shares[i])[: DRAWS - sum(counts)]:
        counts[row] += 1
    return [text for (_, text), count in zip(texts, counts, strict=True) for _ in range(count)]


def join(*corpora: Corpus) -> Corpus:
    """Make one corpus of several; their groups stay apart."""
    texts = np.cumsum([0, *(len(corpus.texts) for corpus in corpora)])
    groups = np.cumsum([0, *(int(corpus.groups.max()) + 1 for corpus in corpora)])
    return Corpus(
        seen=torch.cat([corpus.seen for corpus in corpora]),
        texts=torch.cat([corpus.texts for corpus in corpora]),
        draws=torch.cat([corpus.draws + int(n) for corpus, n in zip(corpora, texts, strict=False)]),
        groups=torch.cat([corpus.groups + int(n) for corpus, n in zip(corpora, groups, strict=False)]),
    )


def new_heads(corpus: Corpus, classes: Tensor, hidden: int) -> tuple[model.ImageHead, model.TextHead]:
    """Make heads that begin at the label mapping: a small correction, and no residual."""
    image, text = model.ImageHead(hidden, dropout=0.3), model.TextHead()
    features = corpus.seen[..., : model.FEATURES].flatten(0, 1)
    image.class_texts.copy_(classes)
    image.centre.copy_(features.mean(0))
    image.spread.copy_(features.std(0).clamp(min=0.02))
    with torch.no_grad():
        image.narrow.weight.mul_(0.3)
        for parameter in (image.narrow.bias, text.shift.weight, text.shift.bias):
            parameter.zero_()
    return image, text


def train(
    corpus: Corpus, classes: Tensor, *, hidden: int, epochs: int, batch: int, seed: int
) -> tuple[model.ImageHead, model.TextHead]:
    """Train one pair of heads, on a random view and a random text of each picture in each epoch."""
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
    steps = epochs * math.ceil(len(corpus.seen) / batch)
    pace = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, [group["lr"] for group in optimiser.param_groups], total_steps=steps, pct_start=0.05
    )
    for _ in track(range(epochs), f"heads of seed {seed}"):
        for rows in torch.randperm(len(corpus.seen)).split(batch):
            features, logits, texts = draw_batch(corpus, rows)
            loss = info_nce(image(features, logits), text(texts), corpus.groups[rows], scale)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            pace.step()
    return image.eval(), text.eval()


def draw_batch(corpus: Corpus, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Draw a view and a text for each row; the plain view comes a little more often than the others."""
    views = torch.randint(VIEWS, rows.shape).masked_fill(torch.rand(rows.shape) < 0.2, 0)
    draws = corpus.draws[rows, torch.randint(DRAWS, rows.shape)]
    features, logits = corpus.seen[rows, views].split([model.FEATURES, model.CLASSES], dim=1)
    return features, logits, corpus.texts[draws]


def info_nce(images: Tensor, texts: Tensor, groups: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE (Radford et al. 2021); other pairs of a group are neither right nor wrong."""
    scores = images @ texts.T * scale.exp().clamp(max=100.0)
    alike = (groups[:, None] == groups[None]) & ~torch.eye(len(groups), dtype=torch.bool)
    scores = scores.masked_fill(alike, -torch.inf)
    right = torch.arange(len(groups))
    return (functional.cross_entropy(scores, right) + functional.cross_entropy(scores.T, right)) / 2


def merge(heads: Sequence[tuple[model.ImageHead, model.TextHead]]) -> tuple[model.ImageHead, model.TextHead]:
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


@torch.no_grad()
def recall(pairs: Sequence[Pair], heads: tuple[model.ImageHead, model.TextHead] | Tensor, cache: Path) -> str:
    """Give R@1, R@5 and R@10 both ways with titles as texts; of the bare label mapping, given class texts."""
    images, titles = [pair.image for pair in pairs], [pair.texts[0][1] for pair in pairs]
    seen = kept(cache, "plain", images, lambda: see(images, 1))[:, 0]
    texts = kept(cache, "titles", [title.encode() for title in titles], lambda: embed_texts(titles))
    features, logits = seen.split([model.FEATURES, model.CLASSES], dim=1)
    if isinstance(heads, Tensor):
        shown = functional.normalize(logits.softmax(1) @ heads, dim=1)
    else:
        shown, texts = heads[0](features, logits), heads[1](texts)
    report = evaluate_retrieval(shown.numpy(), texts.numpy(), np.arange(len(pairs)))
    ways = (report.text_to_image, report.image_to_text)
    return "   ".join(" ".join(f"{way.to_dict()[f'recall@{k}']:.3f}" for k in (1, 5, 10)) for way in ways)


def save(heads: tuple[model.ImageHead, model.TextHead], path: Path, recipe: dict[str, object]) -> None:
    """Write both heads as float16 with the recipe that made them."""
    tensors = {
        f"{name}.{key}": value.half().contiguous()
        for name, head in zip(("image", "text"), heads, strict=True)
        for key, value in head.state_dict().items()
    }
    facts = {"recipe": json.dumps(recipe), "made_by": "scripts/train_lite.py", "torch": torch.__version__}
    save_file(tensors, path, facts)


def main() -> None:
    """Train, merge, write and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the first pair of heads")
    parser.add_argument("--members", type=int, default=3, help="pairs of heads that are merged")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--batch", type=int, default=768)
    parser.add_argument("--cache", type=Path, default=cache_root() / "train_lite")
    parser.add_argument("--output", type=Path, default=weights.heads_file())
    options = parser.parse_args()

    corpus = join(look(sample_pairs("train"), options.cache), look(emoji_pairs(options.cache), options.cache))
    classes = embed_classes()
    recipe = {name: getattr(options, name) for name in ("seed", "members", "hidden", "epochs", "batch")}
    chosen = {name: recipe[name] for name in ("hidden", "epochs", "batch")}
    members = [train(corpus, classes, seed=options.seed + n, **chosen) for n in range(options.members)]
    save(merge(members), options.output, recipe)
    heads = model.load_heads(options.output)
    print(f"{options.output.stat().st_size / 1e6:.1f} MB in {options.output}")
    print(f"{'R@1, R@5, R@10':33}text to image       image to text")
    for split in ("validation", "test"):
        pairs = sample_pairs(split)
        for name, what in (("label mapping", classes), ("heads", heads)):
            print(f"{split:12}{len(pairs):4}  {name:14} {recall(pairs, what, options.cache)}")


if __name__ == "__main__":
    main()
