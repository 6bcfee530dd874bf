"""The check of a data set before the first step: what cannot be learnt from, and what must not be.

Training goes on without pictures that cannot be read, and says so; too many of them stop it.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from crossmodal.encoders.blueprint import Tokenize
from crossmodal.errors import TrainingError, first_few
from training.data.examples import Examples, Integers
from training.data.facts import DataCheck, Shared, split_facts
from training.data.looks import Look, look_at, same_pictures

Left = list[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSettings:
    """How closely pictures are looked at, and what is let pass.

    ``decode``: decode each picture whole, not only its header. ``most_unreadable``: the share of pictures
    beyond which training stops. ``shared``: what becomes of a training record whose picture or key is in
    validation, too.
    """

    decode: bool = False
    most_unreadable: float = 0.05
    shared: Literal["refuse", "drop", "keep"] = "refuse"

    def __post_init__(self) -> None:
        if not 0 <= self.most_unreadable <= 1:
            raise ValueError(f"most_unreadable is a share from 0 to 1, not {self.most_unreadable}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """Examples fit to be learnt from and measured on; records with the same picture are one group."""

    training: Examples
    validation: Examples | None
    check: DataCheck


def check_examples(
    training: Examples,
    validation: Examples | None = None,
    *,
    settings: CheckSettings | None = None,
    tokenizer: Tokenize | None = None,
) -> Checked:
    """Look at all pictures and captions before anything is learnt from them.

    :param tokenizer: measures how long captions are and how many are cut.
    :raises TrainingError: when too many pictures cannot be read, or training and validation share records and
        the settings refuse that.
    """
    settings = settings or CheckSettings()
    training, looks, unreadable = _readable(training, settings)
    if validation is None:
        training = _grouped(training, same_pictures([(training, looks)]))
        facts = split_facts(training, unreadable, tokenizer)
        return Checked(training=training, validation=None, check=DataCheck(training=facts))
    validation, their_looks, their_unreadable = _readable(validation, settings)
    pictures = same_pictures([(training, looks), (validation, their_looks)])
    own, theirs = pictures[: len(training)], pictures[len(training) :]
    shared, kept = _shared(training, validation, np.isin(own, theirs), settings)
    training = _grouped(training, own).take(kept)
    validation = _grouped(validation, theirs)
    return Checked(
        training=training,
        validation=validation,
        check=DataCheck(
            training=split_facts(training, unreadable, tokenizer),
            validation=split_facts(validation, their_unreadable, tokenizer),
            shared=shared,
        ),
    )


def _readable(examples: Examples, settings: CheckSettings) -> tuple[Examples, list[Look], Left]:
    """Leave out the pictures that cannot be read.

    :raises TrainingError: when they are too many.
    """
    looks = look_at(examples, decode=settings.decode)
    bad = [(examples.keys[row], look.failure) for row, look in enumerate(looks) if look.failure]
    if len(bad) == len(looks) or len(bad) > settings.most_unreadable * len(looks):
        first = "; ".join(f"{key}: {reason}" for key, reason in bad[:3])
        raise TrainingError(
            f"{len(bad)} of {len(looks)} pictures of {examples.spec} cannot be read, and at most "
            f"{settings.most_unreadable:.0%} may be ({first}). Mend them, or raise check.most_unreadable"
        )
    good = [row for row, look in enumerate(looks) if not look.failure]
    return examples.take(good), [looks[row] for row in good], bad


def _grouped(examples: Examples, pictures: Integers) -> Examples:
    """Make one group of the records that have the same picture."""
    _, groups = np.unique(pictures, return_inverse=True)
    return replace(examples, groups=groups.astype(np.int64))


def _shared(
    training: Examples, validation: Examples, same_picture: NDArray[np.bool_], settings: CheckSettings
) -> tuple[Shared, Integers]:
    """Tell what both splits hold, and which rows of training stay.

    :raises TrainingError: when they share records and may not.
    """
    keys = set(validation.keys)
    same_key = np.array([key in keys for key in training.keys])
    either = same_picture | same_key
    if settings.shared == "refuse" and either.any():
        first = first_few([training.keys[row] for row in np.flatnonzero(either).tolist()])
        raise TrainingError(
            f"{either.sum()} records of {training.spec} are in {validation.spec}, too: {same_picture.sum()} "
            f"by their picture, {same_key.sum()} by their key ({first}). Measured on what it learnt, a model "
            "looks better than it is. Set check.shared to 'drop' to leave them out of training, or to 'keep'"
        )
    kept = np.flatnonzero(~either) if settings.shared == "drop" else np.arange(len(training))
    if not len(kept):
        raise TrainingError(f"All {len(training)} records of {training.spec} are in {validation.spec}, too")
    return Shared(
        same_picture=[training.keys[row] for row in np.flatnonzero(same_picture).tolist()],
        same_key=[training.keys[row] for row in np.flatnonzero(same_key).tolist()],
        same_captions=len(_captions(training) & _captions(validation)),
        handled=settings.shared,
    ), kept


def _captions(examples: Examples) -> set[str]:
    """Give the captions in use, in lower case and without spaces that do not tell them apart."""
    return {" ".join(examples.texts[n].lower().split()) for n in np.unique(examples.captions.values)}
