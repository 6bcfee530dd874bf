"""How embeddings lie: the gap between pictures and texts, how evenly each spreads, and which are hubs."""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from crossmodal.metrics.counting import NUMBERS_PER_GATHER, SCORES_PER_BLOCK, Embeddings, Integers, blocks

HUB_DEPTH = 10

MOST_FOR_UNIFORMITY = 10_000
"""Of more rows, so many at even distances are taken: their pairs are many enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """What explains recalls, on rows made of length 1.

    ``modality_gap``: the distance between the mean picture and the mean text (Liang et al., "Mind the Gap",
    NeurIPS 2022). ``alignment``: the mean squared distance of a text to its picture; ``image_uniformity`` and
    ``text_uniformity``: the logarithm of the mean of exp(-2 squared distance) over all pairs of two, lower is
    more even (Wang and Isola, ICML 2020). ``image_hubness`` and ``text_hubness``: the skewness of how often
    each is among the first ten of a query (Radovanovic et al., JMLR 2010); 0 is even, above 1 some are hubs.
    """

    modality_gap: float
    alignment: float
    image_uniformity: float
    text_uniformity: float
    image_hubness: float
    text_hubness: float

    def to_dict(self) -> dict[str, float]:
        """Give the measures for JSON."""
        return asdict(self)


def measure_geometry(images: Embeddings, texts: Embeddings, owner: Integers) -> Geometry:
    """Measure how pictures (N, D) and texts (M, D) lie; ``owner``: (M,), the row of each text's picture."""
    pictures, words = _unit(images), _unit(texts)
    return Geometry(
        modality_gap=float(np.linalg.norm(_mean(pictures) - _mean(words))),
        alignment=_alignment(pictures, words, owner),
        image_uniformity=_uniformity(pictures),
        text_uniformity=_uniformity(words),
        image_hubness=skewness(occurrences(words, pictures)),
        text_hubness=skewness(occurrences(pictures, words)),
    )


def occurrences(queries: NDArray[np.float32], gallery: NDArray[np.float32], k: int = HUB_DEPTH) -> Integers:
    """Count for each of the gallery how many queries have it among their first k: (G,)."""
    k = min(k, len(gallery))
    counts = np.zeros(len(gallery), np.int64)
    for some in blocks(len(queries), max(1, SCORES_PER_BLOCK // len(gallery))):
        scores = queries[some] @ gallery.T
        first = np.argpartition(scores, len(gallery) - k, axis=1)[:, len(gallery) - k :]
        counts += np.bincount(first.ravel(), minlength=len(gallery))
    return counts


def skewness(values: Integers) -> float:
    """Give the third standardised moment; 0 where all are equal."""
    apart = values - values.mean()
    spread = float(np.sqrt((apart**2).mean()))
    return float((apart**3).mean()) / spread**3 if spread else 0.0


def _unit(rows: Embeddings) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / lengths, np.float32)


def _mean(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(rows.mean(axis=0, dtype=np.float64))


def _alignment(images: NDArray[np.float32], texts: NDArray[np.float32], owner: Integers) -> float:
    total = 0.0
    for some in blocks(len(texts), max(1, NUMBERS_PER_GATHER // texts.shape[1])):
        apart = images[owner[some]].astype(np.float64) - texts[some]
        total += float((apart**2).sum())
    return total / len(texts)


def _uniformity(rows: NDArray[np.float32]) -> float:
    """Give the uniformity of rows, in blocks; 0 for a single one."""
    rows = rows[:: -(-len(rows) // MOST_FOR_UNIFORMITY)]
    count = len(rows)
    if count == 1:
        return 0.0
    total = -float(count)  # each with itself
    for some in blocks(count, max(1, SCORES_PER_BLOCK // count)):
        total += float(np.exp(4 * (rows[some] @ rows.T) - 4).sum(dtype=np.float64))
    return float(np.log(total / (count * (count - 1))))
