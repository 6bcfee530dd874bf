"""Results side by side, each column of one protocol, with what was published for it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from crossmodal.errors import EvaluationError
from crossmodal.evaluation.references import KS, references
from crossmodal.evaluation.result import DIRECTIONS, Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One encoder: ``recalls`` in percent by direction and k, None where unknown; and their sum."""

    name: str
    published: bool
    recalls: dict[str, dict[int, float | None]]
    rsum: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Results of one protocol, in the order given, and published ones after them."""

    protocol: dict[str, Any]
    rows: list[Row]

    def to_dict(self) -> dict[str, Any]:
        """Give it for JSON, recalls as ``recall@k`` in percent."""
        rows = []
        for row in self.rows:
            facts = asdict(row)
            recalls = facts.pop("recalls")
            for direction in DIRECTIONS:
                facts[direction] = {f"recall@{k}": value for k, value in recalls[direction].items()}
            rows.append(facts)
        return {"protocol": self.protocol, "rows": rows}


def compare(results: Sequence[tuple[str, Result]]) -> Comparison:
    """Put results, each with its file's name, side by side.

    :raises EvaluationError: when they were measured by different protocols, or on different pictures or
        captions; it says which.
    """
    if not results:
        raise EvaluationError("There is nothing to compare; give results of 'crossmodal evaluate'")
    _refuse_different(results)
    protocol = dict(results[0][1].protocol)
    names = _names(results)
    rows = [_row(name, result) for name, (_, result) in zip(names, results, strict=True)]
    for reference in references(str(protocol["name"])):
        recalls = {d: {k: reference.recalls[d].get(k) for k in KS} for d in DIRECTIONS}
        rows.append(Row(name=reference.name, published=True, recalls=recalls, rsum=_sum(recalls)))
    return Comparison(protocol=protocol, rows=rows)


def _refuse_different(results: Sequence[tuple[str, Result]]) -> None:
    """Refuse results that no column may hold together.

    :raises EvaluationError: at the first that differs from the first result, with what differs.
    """
    first_file, first = results[0]
    for file, result in results[1:]:
        for fact in ("name", "images", "texts", "fingerprint", "reranked"):
            seen, expected = result.protocol.get(fact), first.protocol.get(fact)
            if seen != expected:
                what = "other pictures or captions" if fact == "fingerprint" else "another protocol"
                raise EvaluationError(
                    f"{file} was measured by {what} than {first_file}: {fact} {seen} and {expected}. Numbers "
                    "of different protocols say nothing about each other; compare each kind by itself"
                )


def _names(results: Sequence[tuple[str, Result]]) -> list[str]:
    """Name each result by its encoder, and by its file as well where two share one."""
    encoders = [str(result.encoder.get("name", file)) for file, result in results]
    return [
        f"{name} ({file})" if encoders.count(name) > 1 else name
        for name, (file, _) in zip(encoders, results, strict=True)
    ]


def _row(name: str, result: Result) -> Row:
    recalls: dict[str, dict[int, float | None]] = {}
    for direction in DIRECTIONS:
        shares = {k: result.measures[direction].get(f"recall@{k}") for k in KS}
        recalls[direction] = {k: None if share is None else 100 * share for k, share in shares.items()}
    return Row(name=name, published=False, recalls=recalls, rsum=_sum(recalls))


def _sum(recalls: dict[str, dict[int, float | None]]) -> float | None:
    values = [value for side in recalls.values() for value in side.values()]
    return None if None in values else sum(value for value in values if value is not None)
