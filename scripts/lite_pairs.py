"""The pairs that `train_lite.py` learns from and is measured on: pictures, and the texts of each."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from emoji_pairs import read_emoji
from flag_motifs import flag_captions

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
        texts += spread(0.1, keywords)
        texts += [(0.07, ", ".join(keywords)), (0.1, ", ".join([title, *keywords]))]
    if not {"flag", "flags"}.isdisjoint(keywords):
        texts += spread(0.2, flag_captions(title.lower()))
    return tuple(texts)


def emoji_pairs(folder: Path) -> list[Pair]:
    """Read the emoji; a flag is called by its country as often as by its name."""
    pairs = []
    for emoji in read_emoji(folder):
        texts = [(0.5, emoji.name)]
        if emoji.country:
            texts += [(0.4, emoji.country), (0.1, f"{emoji.country} flag")]
            texts += spread(0.2, flag_captions(emoji.country))
        elif emoji.keywords:
            texts += spread(0.25, emoji.keywords)
            texts += [(0.2, ", ".join([emoji.name, *emoji.keywords[:6]]))]
        pairs += [Pair(picture, tuple(texts), plain(emoji.name)) for picture in emoji.pictures]
    return pairs


def spread(weight: float, texts: Sequence[str]) -> list[tuple[float, str]]:
    """Share a weight among texts."""
    return [(weight / len(texts), text) for text in texts]


def plain(text: str) -> str:
    """Give a text's letters alone, so that `Apple 2` and `apple` are one group."""
    return re.sub(r"[\W\d_]+", " ", text.lower()).strip()


def draw(texts: Sequence[tuple[float, str]]) -> list[str]:
    """Give ``DRAWS`` texts, each as often as it weighs; rounding favours those that lose most by it."""
    total = sum(weight for weight, _ in texts)
    shares = [DRAWS * weight / total for weight, _ in texts]
    counts = [math.floor(share) for share in shares]
    for row in sorted(range(len(texts)), key=lambda i: counts[i] - shares[i])[: DRAWS - sum(counts)]:
        counts[row] += 1
    return [text for (_, text), count in zip(texts, counts, strict=True) for _ in range(count)]
