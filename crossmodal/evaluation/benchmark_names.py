"""How benchmarks of faces and persons name what they measure: LFW's file of pairs, Market-1501's pictures."""

import re
from dataclasses import dataclass
from pathlib import Path

from crossmodal.errors import EvaluationError

_MARKET = re.compile(r"(-1|\d{4})_c(\d)s\d_\d{6}_\d{2}")


@dataclass(frozen=True, slots=True)
class FacePair:
    """Two pictures of LFW by their paths in its folder, whether they show the same person, and their fold."""

    first: str
    second: str
    same: bool
    fold: int


def read_lfw_pairs(path: Path) -> list[FacePair]:
    """Read LFW's ``pairs.txt``: folds of as many pairs of the same as of different persons.

    :raises EvaluationError: when the file is of another kind, or has another number of pairs than it says.
    """
    try:
        head, *lines = path.read_text(encoding="utf-8").splitlines()
        folds, each = map(int, head.split())
    except (OSError, ValueError) as error:
        raise EvaluationError(
            f"{path} is no file of LFW's pairs: expected two numbers in its first line ({error})"
        ) from error
    lines = [line for line in lines if line.strip()]
    if len(lines) != 2 * folds * each:
        raise EvaluationError(
            f"{path} promises {folds} folds of 2 x {each} pairs, {2 * folds * each} in all; "
            f"it has {len(lines)}"
        )
    return [_face_pair(line, number // (2 * each), path) for number, line in enumerate(lines)]


def _face_pair(line: str, fold: int, path: Path) -> FacePair:
    match line.split("\t"):
        case [name, one, other] if one.isdecimal() and other.isdecimal():
            return FacePair(_lfw(name, one), _lfw(name, other), True, fold)
        case [name, one, other_name, other] if one.isdecimal() and other.isdecimal():
            return FacePair(_lfw(name, one), _lfw(other_name, other), False, fold)
    raise EvaluationError(f"{path}: {line!r} is no pair; expected NAME N N or NAME N NAME N, tabs between")


def _lfw(name: str, number: str) -> str:
    return f"{name}/{name}_{int(number):04}.jpg"


def parse_market_name(name: str) -> tuple[int, int]:
    """Give the person and the camera in the name of a picture of Market-1501.

    >>> parse_market_name("0002_c1s1_000451_03.jpg"), parse_market_name("-1_c3s2_001976_05.jpg")
    ((2, 1), (-1, 3))

    :raises EvaluationError: when it is none.
    """
    match = _MARKET.match(name)
    if match is None:
        raise EvaluationError(f"{name!r} is no name of Market-1501, such as 0002_c1s1_000451_03.jpg")
    return int(match[1]), int(match[2])
