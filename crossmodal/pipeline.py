"""Records in, embeddings out: decoding runs ahead in threads while the encoder works.

Memory is bounded by the batch: at most ``AHEAD`` batches of decoded pictures exist at any moment, however
many records come. A picture that cannot be read fails alone; its reason travels with it.
"""

import hashlib
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from crossmodal.encoders.base import Embeddings, Encoder, Pixels
from crossmodal.errors import ImageError
from crossmodal.images import load_image
from crossmodal.machine import usable_processors
from crossmodal.types import ImageLike, Record

AHEAD = 2
"""Batches of pictures that may be decoded before the encoder wants them."""

MOST_PER_BATCH = 2
"""A batch ends at the latest after this many times its size in records, were all their pictures known."""

SETTLED_SECONDS = 2.0
"""A file changed more recently than this may change again without its time stamp showing it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is wanted of one record.

    ``known_digest`` and ``known_stamp`` describe the picture whose embedding the caller already holds, if
    any; that picture is not embedded again. ``texts`` are the captions to embed.
    """

    record: Record
    texts: tuple[str, ...] = ()
    known_digest: str = ""
    known_stamp: str = ""


@dataclass(slots=True, kw_only=True)
class Embedded:
    """What became of one record: embeddings, or the reason why there are none in ``failure``.

    ``image_embedding`` is float32 (D,), or None where the picture is the known one; ``text_embeddings`` is
    float32 (len(work.texts), D). ``digest`` is of the picture's content and ``stamp`` of its file.
    """

    work: Work
    digest: str = ""
    stamp: str = ""
    image_embedding: Embeddings | None = None
    text_embeddings: Embeddings = field(default_factory=lambda: np.empty((0, 0), np.float32))
    failure: str = ""


@dataclass(slots=True)
class _Loaded:
    """A record on its way: its picture is decoded, or known, or broken."""

    done: Embedded
    pixels: Pixels | None = None


def embed_records(
    works: Iterable[Work], encoder: Encoder, *, batch_size: int | None = None, workers: int | None = None
) -> Iterator[list[Embedded]]:
    """Decode and embed records, in order, a batch of results at a time.

    :param batch_size: pictures per call of the encoder; its own choice where left out.
    :param workers: decoding threads; the processors this process may use where left out.
    """
    size = batch_size or encoder.batch_size
    with ThreadPoolExecutor(workers or usable_processors(), thread_name_prefix="decode") as pool:
        batch: list[_Loaded] = []
        pictures = 0
        for loaded in _loaded_in_order(works, encoder, pool, ahead=size * AHEAD):
            batch.append(loaded)
            pictures += loaded.pixels is not None
            if pictures == size or len(batch) == size * MOST_PER_BATCH:
                yield _embed(batch, encoder)
                batch, pictures = [], 0
        if batch:
            yield _embed(batch, encoder)


def _loaded_in_order(
    works: Iterable[Work], encoder: Encoder, pool: ThreadPoolExecutor, *, ahead: int
) -> Iterator[_Loaded]:
    """Decode in the pool, a bounded number ahead of what is asked for."""
    waiting: deque[Future[_Loaded]] = deque()
    try:
        for work in works:
            waiting.append(pool.submit(_load, work, encoder))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _load(work: Work, encoder: Encoder) -> _Loaded:
    """Read one picture in a thread of the pool: recognise it, or decode it."""
    done = Embedded(work=work)
    image = work.record.image
    try:
        done.stamp = file_stamp(image)
        if done.stamp and done.stamp == work.known_stamp:
            done.digest = work.known_digest
            return _Loaded(done)
        done.digest = content_digest(image)
        if done.digest == work.known_digest:
            return _Loaded(done)
        return _Loaded(done, encoder.prepare_image(image))
    except ImageError as error:
        done.failure = str(error)
    except FileNotFoundError:
        done.failure = f"no such file: {work.record.uri or work.record.key}"
    except OSError as error:
        done.failure = f"cannot be read: {error.strerror or error}"
    except ValueError as error:  # a path that no system knows, such as one with a null byte
        done.failure = f"cannot be read: {error}"
    return _Loaded(done)


def _embed(batch: list[_Loaded], encoder: Encoder) -> list[Embedded]:
    """Run both towers over one batch and give every record its part."""
    pixels = [loaded.pixels for loaded in batch if loaded.pixels is not None]
    if pixels:
        embeddings = iter(encoder.embed_pixels(np.stack(pixels)))
        for loaded in batch:
            if loaded.pixels is not None:
                loaded.done.image_embedding = next(embeddings)
    with_texts = [loaded.done for loaded in batch if loaded.done.work.texts and not loaded.done.failure]
    if with_texts:
        texts = encoder.encode_texts(text for done in with_texts for text in done.work.texts)
        start = 0
        for done in with_texts:
            done.text_embeddings = texts[start : start + len(done.work.texts)]
            start += len(done.work.texts)
    return [loaded.done for loaded in batch]


def file_stamp(image: ImageLike) -> str:
    """Say which state of which file this is, without reading it; empty for what is no settled file.

    Size, times of change and inode number together change whenever the content does, as git's index relies on
    too; a file changed within the last two seconds gets no stamp, for it may change again unseen.
    """
    if not isinstance(image, str | os.PathLike):
        return ""
    stat = Path(image).stat()
    if time.time() - max(stat.st_mtime, stat.st_ctime) < SETTLED_SECONDS:
        return ""
    return f"{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}:{stat.st_ino}"


def content_digest(image: ImageLike) -> str:
    """Hash what a picture holds: a file's bytes, or the pixels of an array or of a PIL image as seen."""
    digest = hashlib.blake2b(digest_size=16)
    if isinstance(image, str | os.PathLike):
        with Path(image).open("rb") as file:
            return hashlib.file_digest(file, lambda: digest).hexdigest()
    if isinstance(image, bytes):
        digest.update(image)
    else:
        array = np.ascontiguousarray(image if isinstance(image, np.ndarray) else load_image(image))
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(array.data)
    return digest.hexdigest()
