"""Embeddings in a file: ``.npz`` with who belongs to whom, and who they are where that is known."""

import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from crossmodal.errors import EvaluationError
from crossmodal.evaluation.pairs import Pairs
from crossmodal.evaluation.reading import Embedded
from crossmodal.metrics.retrieval import checked_owners

NEEDED = ("image_embeddings", "text_embeddings", "image_of_text")


def read_embeddings(path: Path) -> Embedded:
    """Read ``image_embeddings`` (N, D), ``text_embeddings`` (M, D) and ``image_of_text`` (M,).

    ``image_ids`` (N,) and ``captions`` (M,) may stand beside them; without these, a picture's id is its row.

    :raises EvaluationError: when the file is no such file, or what it holds does not fit together.
    """
    arrays = _arrays(path)
    if absent := [name for name in NEEDED if name not in arrays]:
        raise EvaluationError(
            f"{path} lacks {', '.join(absent)}; it holds: {', '.join(sorted(arrays)) or 'nothing'}"
        )
    images, texts, owner = (arrays[name] for name in NEEDED)
    if images.ndim != 2 or texts.ndim != 2 or owner.ndim != 1:
        shapes = ", ".join(f"{name} {arrays[name].shape}" for name in NEEDED)
        raise EvaluationError(f"{path}: expected shapes (N, D), (M, D) and (M,); seen {shapes}")
    ids = arrays.get("image_ids", np.arange(len(images)))
    captions = arrays.get("captions", np.full(len(texts), ""))
    for name, given, rows in (("image_ids", ids, len(images)), ("captions", captions, len(texts))):
        if given.shape != (rows,):
            raise EvaluationError(f"{path}: {name} has shape {given.shape}; expected ({rows},)")
    pairs = Pairs(
        image_ids=tuple(map(str, ids.tolist())),
        captions=tuple(map(str, captions.tolist())),
        image_of_text=checked_owners(owner, len(images), len(texts)),
    )
    return Embedded(pairs=pairs, images=images, texts=texts)


def write_embeddings(embedded: Embedded, path: Path) -> None:
    """Write embeddings so that ``read_embeddings`` gives them back."""
    with path.open("wb") as file:  # np.savez would give a path without .npz one
        _write(embedded, file)


def _write(embedded: Embedded, file: BinaryIO) -> None:
    np.savez(
        file,
        image_embeddings=embedded.images,
        text_embeddings=embedded.texts,
        image_of_text=embedded.pairs.image_of_text,
        image_ids=np.array(embedded.pairs.image_ids),
        captions=np.array(embedded.pairs.captions),
    )


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Give the arrays of a file; none of them may be a pickle, which could run code.

    :raises EvaluationError: when it does not exist or is no ``.npz``.
    """
    if not path.is_file():
        raise EvaluationError(f"No such file: {path}")
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise EvaluationError(f"{path} is no .npz of plain arrays: {error}") from error
