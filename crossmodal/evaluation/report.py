"""A report of one evaluation to read and to send: Markdown, or one HTML file that needs nothing beside it."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossmodal.errors import EvaluationError, ImageError
from crossmodal.evaluation.measure import Measured
from crossmodal.evaluation.predictions import best_hits
from crossmodal.evaluation.reading import selected_records
from crossmodal.evaluation.result import DIRECTIONS, Result
from crossmodal.images import load_image
from crossmodal.sources import Source

HARDEST = 12
DEEPEST = 100
THUMBNAIL = 160
WORDS = {"text_to_image": "words to pictures", "image_to_text": "pictures to words"}

STYLE = """
:root { color-scheme: light dark; --line: #8884; --one: #2a6fdb; --two: #d2691e; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; } td, th { padding: .2rem .8rem; border-bottom: 1px solid var(--line); }
td:not(:first-child), th:not(:first-child) { text-align: right; font-variant-numeric: tabular-nums; }
figure { display: inline-block; margin: .5rem; width: 160px; vertical-align: top; font-size: 13px;
  overflow-wrap: anywhere; }
figure img { max-width: 160px; border-radius: 4px; } svg text { fill: currentColor; font-size: 12px; }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hard:
    """A caption that found its picture late: its ``rank``, that picture, and the one it found first."""

    caption: str
    rank: int
    image: str
    found: str


def write_report(measured: Measured, result: Result, path: Path, source: Source | None = None) -> None:
    """Write a report, as Markdown or HTML by the suffix of its file; pictures come from the source, if any.

    :raises EvaluationError: when the suffix is another.
    """
    check_suffix(path)
    writer = to_html if path.suffix == ".html" else to_markdown
    hard = hardest(measured)
    pictures = {}
    if source is not None and path.suffix == ".html":
        pictures = thumbnails(measured, source, {key for one in hard for key in (one.image, one.found)})
    curves = {direction: recall_curve(measured, direction) for direction in DIRECTIONS}
    part = path.with_name(path.name + ".part")
    part.write_text(writer(result, curves, hard, pictures), encoding="utf-8")
    part.replace(path)


def check_suffix(path: Path) -> None:
    """Refuse what is neither Markdown nor HTML.

    :raises EvaluationError: so.
    """
    if path.suffix not in (".md", ".html"):
        raise EvaluationError(f"{path} is neither .md nor .html; a report is one of them")


def recall_curve(measured: Measured, direction: str) -> list[float]:
    """Give recall at 1, 2, ... as far as the gallery and ``DEEPEST`` go."""
    ranks = np.concatenate([fold.reports[direction].per_query.rank for fold in measured.folds])
    fold = measured.folds[0]
    gallery = len(fold.images if direction == "text_to_image" else fold.texts)
    return [float(np.mean(ranks <= k)) for k in range(1, min(DEEPEST, gallery) + 1)]


def hardest(measured: Measured, count: int = HARDEST) -> list[Hard]:
    """Give the captions that found their pictures last, and what they found first."""
    pairs, embedded = measured.embedded.pairs, measured.embedded
    hard = []
    for fold in measured.folds:
        per_query = fold.reports["text_to_image"].per_query
        last = np.argsort(-per_query.rank, kind="stable")[:count]
        rows = fold.queries("text_to_image")[last]
        first, _ = best_hits(embedded.texts[rows], embedded.images[fold.images], 1)
        for row, rank, found in zip(rows.tolist(), per_query.rank[last].tolist(), first[:, 0], strict=True):
            own = pairs.image_ids[int(pairs.image_of_text[row])]
            other = pairs.image_ids[int(fold.images[found])]
            hard.append(Hard(caption=pairs.captions[row], rank=rank, image=own, found=other))
    return sorted(hard, key=lambda one: -one.rank)[:count]


def thumbnails(measured: Measured, source: Source, wanted: set[str]) -> dict[str, str]:
    """Read the source once more, and give small copies of some pictures as data URLs by their ids."""
    urls = {}
    for key, record in selected_records(source, measured.protocol):
        if key not in wanted:
            continue
        try:
            picture = load_image(record.image, at_least=THUMBNAIL)
        except (ImageError, OSError):
            continue
        picture.thumbnail((THUMBNAIL, THUMBNAIL))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=80)
        urls[key] = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    return urls


def rows_of(result: Result) -> list[list[str]]:
    """Give a row for each measure, a cell for each direction, with its interval where there is one."""
    details = result.more.get("details", {})
    confidence = result.more.get("confidence", {})
    sides = {
        direction: {**result.measures[direction], **details.get(direction, {})} for direction in DIRECTIONS
    }
    rows = []
    for name in dict.fromkeys(name for values in sides.values() for name in values):
        cells = []
        for direction, values in sides.items():
            bounds = confidence.get(direction, {}).get(name, [])
            shown = [_number(name, value) for value in (values[name], *bounds)]
            cells.append(f"{shown[0]} ({shown[1]} to {shown[2]})" if bounds else shown[0])
        rows.append([name, *cells])
    return rows


def to_markdown(
    result: Result, curves: Mapping[str, Sequence[float]], hard: Sequence[Hard], _pictures: Mapping[str, str]
) -> str:
    """Give the report as Markdown."""
    head = ["", *(WORDS[direction] for direction in DIRECTIONS)]
    curve = [["k", *WORDS.values()]]
    deepest = min(len(values) for values in curves.values())
    for k in (k for k in (1, 2, 5, 10, 20, 50, 100) if k <= deepest):
        curve.append([str(k), *(f"{100 * curves[direction][k - 1]:.1f}" for direction in DIRECTIONS)])
    late = [["rank", "caption", "its picture", "found first"]]
    late += [[str(one.rank), one.caption, one.image, one.found] for one in hard]
    parts = [
        f"# {_cell(_title(result))}",
        _cell(_facts(result)),
        _table([head, *rows_of(result)]),
        "## Recall at k, in percent",
        _table(curve),
        "## Captions that found their pictures last",
        _table(late),
    ]
    return "\n\n".join(parts) + "\n"


def to_html(
    result: Result, curves: Mapping[str, Sequence[float]], hard: Sequence[Hard], pictures: Mapping[str, str]
) -> str:
    """Give the report as one HTML file; whatever came from the data is escaped."""
    say = html.escape
    head = "".join(f"<th>{WORDS[direction]}</th>" for direction in DIRECTIONS)
    rows = "".join(
        "<tr>" + "".join(f"<td>{say(cell)}</td>" for cell in row) + "</tr>" for row in rows_of(result)
    )
    late = "".join(
        f"<p><b>{say(one.caption)}</b><br>rank {one.rank:,}</p>"
        + _figure("its picture", one.image, pictures)
        + _figure("found first", one.found, pictures)
        for one in hard
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{say(_title(result))}</title>'
        f"<style>{STYLE}</style><h1>{say(_title(result))}</h1><p>{say(_facts(result))}</p>"
        f"<table><tr><th></th>{head}</tr>{rows}</table><h2>Recall at k</h2>{_chart(curves)}"
        f"<h2>Captions that found their pictures last</h2>{late}</html>\n"
    )


def _chart(curves: Mapping[str, Sequence[float]]) -> str:
    """Draw recall over k as lines of an SVG, k on a logarithmic axis."""
    wide, high, left, bottom = 560, 240, 40, 24
    furthest = max(2, *(len(values) for values in curves.values()))

    def point(k: int, share: float) -> str:
        across = left + (wide - left) * float(np.log(k) / np.log(furthest))
        return f"{across:.1f},{(high - bottom) * (1 - share) + 8:.1f}"

    parts = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        _, y = point(1, share).split(",")
        parts.append(f'<line x1="{left}" x2="{wide}" y1="{y}" y2="{y}" stroke="var(--line)"/>')
        parts.append(f'<text x="0" y="{float(y) + 4}">{share:.0%}</text>')
    for k in (k for k in (1, 2, 5, 10, 20, 50, 100) if k <= furthest):
        parts.append(f'<text x="{point(k, 0).split(",")[0]}" y="{high + 4}" text-anchor="middle">{k}</text>')
    for colour, (direction, values) in zip(("--one", "--two"), curves.items(), strict=True):
        line = " ".join(point(k, share) for k, share in enumerate(values, 1))
        parts.append(
            f'<polyline points="{line}" fill="none" stroke="var({colour})" stroke-width="2">'
            f"<title>{WORDS[direction]}</title></polyline>"
        )
    legend = "".join(
        f'<span style="color:var({colour})">&#9632;</span> {WORDS[direction]} '
        for colour, direction in zip(("--one", "--two"), curves, strict=True)
    )
    return f'<svg viewBox="0 0 {wide + 16} {high + 8}" width="{wide}">{"".join(parts)}</svg><p>{legend}</p>'


def _figure(what: str, key: str, pictures: Mapping[str, str]) -> str:
    name = html.escape(key)
    picture = f'<img src="{pictures[key]}" alt="{name}">' if key in pictures else ""
    return f"<figure>{picture}<figcaption>{what}: {name}</figcaption></figure>"


def _title(result: Result) -> str:
    return f"{result.encoder.get('name', 'embeddings')} on {result.protocol['name']}"


def _facts(result: Result) -> str:
    facts = result.protocol
    left_out = len(facts.get("left_out", []))
    return (
        f"{facts['images']:,} pictures, {facts['texts']:,} captions, fingerprint {facts['fingerprint']}; "
        f"rsum {result.rsum:.1f}"
        + (f"; {left_out:,} things are missing" if left_out else "")
        + "".join(
            f"; {name.replace('_', ' ')} {value:.2f}"
            for name, value in result.more.get("geometry", {}).items()
        )
    )


def _number(name: str, value: float) -> str:
    return f"{value:,.1f}" if name.endswith("_rank") else f"{100 * value:.1f}%"


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = (f"| {' | '.join(map(_cell, row))} |" for row in rows)
    return "\n".join([head, "|" + "-|" * len(rows[0]), *body])


def _cell(text: str) -> str:
    """Give a text as it may stand in a table of Markdown."""
    return " ".join(html.escape(text, quote=False).replace("|", "\\|").split())
