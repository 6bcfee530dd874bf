"""Who belongs to whom on COCO beyond the pairs: ECCV Caption and Crisscrossed Captions.

Both come with the package ``eccv-caption``, whose data files are read; its code, which wants whole rankings,
is not run. It names pictures by COCO's ids and captions by COCO's annotation ids, five of each picture in the
order of Karpathy's file.
"""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossmodal.errors import EvaluationError, MissingPackageError, first_few
from crossmodal.evaluation.pairs import Pairs

Rows = list[NDArray[np.int64]]


def read_judgements(kind: str, pairs: Pairs) -> dict[str, Rows]:
    """Give by direction, for each query, the rows that are relevant to it; none where it was not judged.

    A row of -1 is a caption that was judged and is not among the pairs.

    :param kind: ``eccv`` or ``cxc``.
    :param pairs: COCO's 5,000 test pictures by their COCO ids, with five captions each.
    :raises EvaluationError: when they are others.
    :raises MissingPackageError: when the package is not installed.
    """
    folder = _data_folder()
    own_captions = {int(image): ids for image, ids in _captions_of_images(folder).items()}
    images = _as_coco_ids(pairs, set(own_captions))
    row_of_image = {image: row for row, image in enumerate(images)}
    row_of_caption: dict[int, int] = {}
    for image, rows in zip(images, pairs.texts_of_images, strict=True):
        row_of_caption.update(zip(own_captions[image], rows.tolist(), strict=True))
    captions = {row: caption for caption, row in row_of_caption.items()}
    to_text = _read(folder / f"{kind}_image_to_caption.json")
    to_image = _read(folder / f"{kind}_caption_to_image.json")
    return {
        "text_to_image": [
            _rows(to_image.get(captions[row], []), row_of_image) for row in range(len(pairs.captions))
        ],
        "image_to_text": [_rows(to_text.get(image, []), row_of_caption) for image in images],
    }


def _rows(ids: list[int], row_of: dict[int, int]) -> NDArray[np.int64]:
    # Two captions that ECCV Caption judged are a sixth of their picture, which no ranking holds.
    return np.array([row_of.get(one, -1) for one in ids], np.int64)


def _as_coco_ids(pairs: Pairs, known: set[int]) -> list[int]:
    """Give the pictures' ids as numbers.

    :raises EvaluationError: when they are not those of the test pictures, or a picture lacks its captions.
    """
    strangers = [key for key in pairs.image_ids if not key.isdecimal() or int(key) not in known]
    if strangers or len(pairs.image_ids) != len(known):
        raise EvaluationError(
            f"The judgements are of COCO's {len(known):,} test pictures by their COCO ids; seen "
            f"{len(pairs.image_ids):,} pictures, {len(strangers):,} of them unknown: {first_few(strangers)}. "
            "Read Karpathy's dataset_coco.json, or give the COCO ids as image_ids"
        )
    wrong = [key for key, rows in zip(pairs.image_ids, pairs.texts_of_images, strict=True) if len(rows) != 5]
    if wrong:
        raise EvaluationError(
            f"The judgements are of five captions a picture; {len(wrong)} pictures have another number: "
            f"{first_few(wrong)}"
        )
    return [int(key) for key in pairs.image_ids]


def _captions_of_images(folder: Path) -> dict[int, list[int]]:
    """Give each picture's caption ids in the order of Karpathy's file."""
    image_of = _read(folder / "original_caption_to_image.json")
    captions: dict[int, list[int]] = {}
    for caption in np.load(folder / "coco_test_ids.npy", allow_pickle=False).tolist():
        captions.setdefault(image_of[caption][0], []).append(caption)
    return captions


def _read(path: Path) -> dict[int, list[int]]:
    document: dict[str, list[Any]] = json.loads(path.read_text(encoding="utf-8"))
    return {int(key): [int(value) for value in values] for key, values in document.items()}


def _data_folder() -> Path:
    spec = find_spec("eccv_caption")
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError(
            "The judgements of ECCV Caption and CxC come with a package: "
            "pip install 'crossmodal-retrieval[eval]'"
        )
    return Path(spec.submodule_search_locations[0]) / "data"
