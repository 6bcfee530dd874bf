"""From a source to the pictures and captions that a protocol measures, and to their embeddings."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossmodal.encoders.base import Encoder
from crossmodal.errors import EvaluationError
from crossmodal.evaluation.pairs import Pairs
from crossmodal.evaluation.protocols import Protocol
from crossmodal.pipeline import Work, embed_records
from crossmodal.sources import Source
from crossmodal.types import Record

Embeddings = NDArray[np.floating[Any]]
LeftOut = list[tuple[str, str]]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Embedded:
    """Pairs and their embeddings: ``images`` (N, D), ``texts`` (M, D); ``left_out`` has keys and reasons."""

    pairs: Pairs
    images: Embeddings
    texts: Embeddings
    left_out: LeftOut = field(default_factory=list)


def embed_source(
    source: Source,
    protocol: Protocol,
    encoder: Encoder,
    *,
    allow_missing: bool = False,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Embedded:
    """Read a source twice: for its ids and captions, which are checked, and then for its pictures.

    :param allow_missing: measure without what is missing; it is in ``left_out`` then.
    :raises EvaluationError: when the source is not what the protocol measures, or something is missing.
    """
    pairs, left_out = read_pairs(source, protocol)
    if not allow_missing:
        refuse_missing(left_out, len(pairs.image_ids))
    protocol.check_counts(pairs, missing=len(left_out))
    images: list[Embeddings] = []
    texts: list[Embeddings] = []
    failures: dict[int, tuple[str, str]] = {}
    works = (Work(record=record, texts=record.captions) for _, record in selected_records(source, protocol))
    for batch in embed_records(works, encoder, batch_size=batch_size):
        for done in batch:
            if done.image_embedding is None:
                failures[len(images) + len(failures)] = done.work.record.key, done.failure
                continue
            images.append(done.image_embedding)
            texts.append(done.text_embeddings)
        if progress:
            progress(len(images) + len(failures), len(pairs.image_ids))
    left_out = [*source.skipped, *failures.values()]
    if not allow_missing:
        refuse_missing(left_out, len(pairs.image_ids))
    if not images:
        raise EvaluationError(f"{source.spec}: no picture could be read; {_reasons(left_out)}")
    return Embedded(
        pairs=pairs.without_images(list(failures)),
        images=np.stack(images),
        texts=np.concatenate([some for some in texts if len(some)]),
        left_out=left_out,
    )


def read_pairs(source: Source, protocol: Protocol) -> tuple[Pairs, LeftOut]:
    """Read the ids and captions that a protocol measures, and what of the source is known to be missing.

    :raises EvaluationError: when ids repeat, or the source lacks the protocol's split.
    """
    ids: list[str] = []
    captions: list[tuple[str, ...]] = []
    gone: LeftOut = []
    for key, record in selected_records(source, protocol):
        ids.append(key)
        captions.append(record.captions)
        if isinstance(record.image, str | os.PathLike) and not os.path.exists(record.image):  # noqa: PTH110
            gone.append((record.key, f"no such file: {record.uri or record.key}"))
    return Pairs.of(ids, captions), [*source.skipped, *gone]


def refuse_missing(left_out: LeftOut, there: int) -> None:
    """Refuse to measure without what is missing.

    :raises EvaluationError: with the counts, and the reasons by how often they occur.
    """
    if left_out:
        raise EvaluationError(
            f"{len(left_out):,} things are missing beside or among {there:,} pictures: {_reasons(left_out)}. "
            "Mend them, or measure without them: --allow-missing, which the result will state"
        )


def selected_records(source: Source, protocol: Protocol) -> Iterator[tuple[str, Record]]:
    """Yield the records that a protocol measures, each with its id, and with the captions that it takes.

    :raises EvaluationError: at the end, when records say their split and none is of the protocol's.
    """
    seen: Counter[str] = Counter()
    for record in source:
        split = record.metadata.get("split") if protocol.split else None
        seen[str(split or "")] += 1
        if split and split != protocol.split:
            continue
        captions = record.captions
        if protocol.is_benchmark and len(captions) == 1:
            # CLIP_benchmark's shards hold all captions of a picture in one text, a line each.
            captions = tuple(line for line in captions[0].splitlines() if line.strip())
        key = str(record.metadata.get(protocol.id_field) or record.key)
        yield key, replace(record, captions=captions[: protocol.captions])
    if protocol.split and not seen[protocol.split] and not seen[""]:
        there = ", ".join(f"{split} ({count:,})" for split, count in sorted(seen.items()) if split)
        raise EvaluationError(
            f"{source.spec} has no split {protocol.split!r}, which {protocol.name} measures; "
            f"it has: {there or 'no records'}"
        )


def _reasons(left_out: LeftOut) -> str:
    """Count what is left out by its reason, with the first key of each."""
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for key, reason in left_out:
        short = reason.split(":")[0]
        first.setdefault(short, key)
        counts[short] += 1
    return "; ".join(f"{count:,} {short} ({first[short]} ...)" for short, count in counts.most_common(5))
