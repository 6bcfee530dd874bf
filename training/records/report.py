"""The page a training leaves, ``report.html``: curves, facts, and the queries that went worst and best.

It is one file, without scripts and without anything fetched; every word that comes from data is escaped.
"""

import html
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossmodal.refusals import storage_errors
from training.data.examples import Examples
from training.records.cards import cards
from training.records.curves import Chart, Curve, draw
from training.records.queries import Extremes

_STYLE = Path(__file__).with_name("report.css")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the page shows.

    ``metrics``: the lines of ``metrics.jsonl``. ``facts``: what is told at the top. ``recipe``: its values by
    their keys. ``check``: lines of the data set's check. ``best_step``: of the model that was kept.
    """

    title: str
    metrics: Sequence[Mapping[str, Any]]
    facts: Mapping[str, str] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    check: Sequence[str] = ()
    best_step: int | None = None
    examples: Examples | None = None
    text_to_image: Extremes | None = None
    image_to_text: Extremes | None = None


def write_report(report: Report, path: Path) -> None:
    """Write the page, whole or not at all.

    :raises StorageError: when the disk refuses.
    """
    page = render(report)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            new = Path(scratch) / path.name
            new.write_text(page, encoding="utf-8")
            new.replace(path)


def render(report: Report) -> str:
    """Give the page as HTML."""
    charts = "".join(draw(chart, report.best_step) for chart in charts_of(report.metrics))
    parts = [
        f"<header><h1>{_esc(report.title)}</h1>{_definitions('facts', report.facts)}</header>",
        _tiles(report),
        _section("Curves", f'<div class="charts">{charts}</div>' if charts else ""),
        _section("Pictures by words", cards(report.examples, report.text_to_image, by_words=True)),
        _section("Words by pictures", cards(report.examples, report.image_to_text, by_words=False)),
        _section("Data", _list(report.check)),
        _section("Recipe", _definitions("recipe", report.recipe)),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{_esc(report.title)}</title>\n<style>\n{_STYLE.read_text(encoding='utf-8')}</style>\n</head>\n"
        f"<body>\n<main>\n{chr(10).join(part for part in parts if part)}\n</main>\n</body>\n</html>\n"
    )


def charts_of(metrics: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Sort the figures of a run into charts: recalls of one direction together, each other one by itself."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for entry in metrics:
        for name, value in entry.items():
            if name != "step" and isinstance(value, int | float) and not isinstance(value, bool):
                curves.setdefault(name, []).append((float(entry["step"]), float(value)))
    charts = []
    known = ("loss", "text_to_image.recall", "image_to_text.recall", "rsum", "rate", "scale", "gradient")
    for name in [*known, *sorted(curves)]:
        together = [n for n in curves if n == name or n.startswith(f"{name}@")]
        if together:
            recall = "recall@" in together[0]
            charts.append(
                Chart(
                    title=_TITLES.get(name, name),
                    curves=[Curve(name=_curve_name(n), points=curves.pop(n)) for n in together],
                    percent=recall,
                    smooth=name in ("loss", "gradient"),
                )
            )
    return charts


_TITLES = {
    "loss": "Loss",
    "text_to_image.recall": "Recall, pictures by words",
    "image_to_text.recall": "Recall, words by pictures",
    "rsum": "Sum of recalls",
    "rate": "Learning rate",
    "scale": "Scale of scores (1 / temperature)",
    "gradient": "Norm of the gradient",
}


def _curve_name(name: str) -> str:
    return f"R@{name.rpartition('@')[2]}" if "recall@" in name else name


def _tiles(report: Report) -> str:
    """Tell the figures of the best validation in large type."""
    entries = [entry for entry in report.metrics if "rsum" in entry]
    if not entries:
        return ""
    wanted = [entry for entry in entries if entry["step"] == report.best_step]
    best = wanted[-1] if wanted else max(entries, key=lambda entry: float(entry["rsum"]))
    told = {"sum of recalls": f"{best['rsum']:.1f}", "best step": f"{best['step']:,}"}
    for direction, words in (("text_to_image", "pictures by words"), ("image_to_text", "words by pictures")):
        for k in (1, 10):
            if (share := best.get(f"{direction}.recall@{k}")) is not None:
                told[f"R@{k}, {words}"] = f"{share:.1%}"
    return _definitions("tiles", told)


def _section(title: str, body: str) -> str:
    return f"<section><h2>{_esc(title)}</h2>{body}</section>" if body else ""


def _definitions(kind: str, values: Mapping[str, Any]) -> str:
    rows = (f"<div><dt>{_esc(name)}</dt><dd>{_esc(str(value))}</dd></div>" for name, value in values.items())
    return f'<dl class="{kind}">{"".join(rows)}</dl>' if values else ""


def _list(lines: Sequence[str]) -> str:
    items = "".join(f"<li>{_esc(line)}</li>" for line in lines)
    return f'<ul class="lines">{items}</ul>' if items else ""


def _esc(text: str) -> str:
    return html.escape(text)
