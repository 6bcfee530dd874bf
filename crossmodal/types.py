"""The words everything here speaks in: records, query terms and hits."""

import datetime
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, Union

if TYPE_CHECKING:
    import numpy as np
    import PIL.Image

Modality: TypeAlias = Literal["image", "text"]
MODALITIES: tuple[Modality, ...] = ("image", "text")

ImageLike: TypeAlias = Union[str, os.PathLike[str], bytes, "PIL.Image.Image", "np.ndarray[Any, Any]"]
"""A picture as people hold it: a path, the bytes of a file, a PIL image, or uint8 pixels (H, W, 3)."""

MetadataValue: TypeAlias = str | int | float | bool | datetime.datetime | datetime.date | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One thing in a collection: a picture, the captions that say what it shows, and facts about it.

    ``uri`` says where the picture can be fetched again (a path, ``shard.tar#member``, ...); it is empty where
    there is no such place. A record without captions is found by its picture alone.
    """

    key: str
    image: ImageLike
    captions: tuple[str, ...] = ()
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
    uri: str = ""


@dataclass(frozen=True, slots=True)
class Term:
    """One weighted part of a query; a negative weight pushes away."""

    modality: Modality
    value: ImageLike
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One answer: a picture or a caption of record ``key``, and its score (inner product, higher is better).

    ``text`` is the caption for ``target="text"``, and all captions of the picture, a line each, for
    ``target="image"``.
    """

    key: str
    target: Modality
    score: float
    uri: str
    text: str
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
