"""Figures over steps as drawings in SVG that a page may hold as they are."""

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 520, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 28

_POINTS = 400
_SMOOTH_FROM = 60
_NEIGHBOURS = 40

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One line: its name, and (step, value) by step. A value that is not finite leaves a gap."""

    name: str
    points: Points


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Lines over one pair of axes. ``smooth``: of many points the average is drawn, and they are pale."""

    title: str
    curves: Sequence[Curve]
    percent: bool = False
    smooth: bool = False


def draw(chart: Chart, marked: float | None = None) -> str:
    """Draw a chart, or nothing where no curve has a point.

    :param marked: a step to be marked by an upright line.
    """
    values = [value for curve in chart.curves for _, value in curve.points if math.isfinite(value)]
    steps = [step for curve in chart.curves for step, _ in curve.points]
    if not values:
        return ""
    scale = _Scale.around(steps, values, chart.percent)
    lines = "".join(
        _curve(curve, number, chart.smooth, scale) for number, curve in enumerate(chart.curves, 1)
    )
    mark = ""
    if marked is not None:
        x = f"{scale.x(marked):.1f}"
        mark = f'<line class="mark" x1="{x}" x2="{x}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
    label = html.escape(f"{chart.title}: {_summary(chart)}")
    return (
        f'<figure class="chart"><figcaption>{html.escape(chart.title)}{_legend(chart)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        f"{''.join(_axes(scale, chart.percent))}{mark}{lines}</svg></figure>"
    )


@dataclass(frozen=True, slots=True)
class _Scale:
    """From steps and values to places in the drawing, and the ticks between their ends."""

    first: float
    last: float
    low: float
    high: float
    values: tuple[float, ...]
    steps: tuple[float, ...]

    @classmethod
    def around(cls, steps: Sequence[float], values: Sequence[float], percent: bool) -> "_Scale":
        first, last = min(steps), max(steps)
        ticks = nice_ticks(min(values), max(values), least=0.01 if percent else 0.0)
        step_ticks = [t for t in nice_ticks(first, last, least=1.0, count=6) if first <= t <= last]
        return cls(first, last, ticks[0], ticks[-1], tuple(ticks), tuple(step_ticks or [first]))

    def x(self, step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (step - self.first) / ((self.last - self.first) or 1)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - self.low) / ((self.high - self.low) or 1)


def nice_ticks(low: float, high: float, *, least: float = 0.0, count: int = 5) -> list[float]:
    """Give about ``count`` round numbers that reach from ``low`` or below to ``high`` or above.

    :param least: how far they lie apart at least.

    >>> nice_ticks(0.13, 4.9)
    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    """
    span = (high - low) or abs(high) or 1.0
    raw = max(span / count, least)
    power = 10.0 ** math.floor(math.log10(raw))
    apart = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    start, end = math.floor(low / apart + 1e-9), math.ceil(high / apart - 1e-9)
    return [round(number * apart, 12) for number in range(start, max(end, start + 1) + 1)]


def _axes(scale: _Scale, percent: bool) -> Iterator[str]:
    for value in scale.values:
        y = f"{scale.y(value):.1f}"
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
        place = f'x="{LEFT - 8}" y="{y}" dy="0.32em" text-anchor="end"'
        yield f'<text class="tick" {place}>{_told(value, percent)}</text>'
    for step in scale.steps:
        place = f'x="{scale.x(step):.1f}" y="{HEIGHT - 8}" text-anchor="middle"'
        yield f'<text class="tick" {place}>{step:,.0f}</text>'


def _curve(curve: Curve, number: int, smooth: bool, scale: _Scale) -> str:
    points = thinned(curve.points)
    if not (smooth and len(points) >= _SMOOTH_FROM):
        return _line(points, f"line c{number}", scale)
    return _line(points, f"line pale c{number}", scale) + _line(smoothed(points), f"line c{number}", scale)


def _line(points: Points, kind: str, scale: _Scale) -> str:
    """Draw a line with gaps where values are not finite; a point by itself becomes a dot."""
    out = ""
    for run in _runs(points):
        places = " ".join(f"{scale.x(step):.1f},{scale.y(value):.1f}" for step, value in run)
        if len(run) == 1:
            x, y = places.split(",")
            out += f'<circle class="{kind} dot" cx="{x}" cy="{y}" r="3"/>'
        else:
            out += f'<polyline class="{kind}" points="{places}"/>'
    return out


def _runs(points: Points) -> Iterator[Points]:
    run: list[tuple[float, float]] = []
    for step, value in points:
        if math.isfinite(value):
            run.append((step, value))
        elif run:
            yield run
            run = []
    if run:
        yield run


def thinned(points: Points) -> Points:
    """Give at most ``_POINTS`` points: the means of as many stretches."""
    size = -(-len(points) // _POINTS)
    if size <= 1:
        return points
    stretches = (points[start : start + size] for start in range(0, len(points), size))
    return [(sum(s for s, _ in part) / len(part), sum(v for _, v in part) / len(part)) for part in stretches]


def smoothed(points: Points) -> Points:
    """Give for each point the mean of those around it, as many before as behind, which shifts nothing."""
    reach = max(1, len(points) // _NEIGHBOURS)
    out = []
    for place, (step, value) in enumerate(points):
        within = min(reach, place, len(points) - 1 - place)
        near = [v for _, v in points[place - within : place + within + 1] if math.isfinite(v)]
        out.append((step, sum(near) / len(near) if math.isfinite(value) else value))
    return out


def _legend(chart: Chart) -> str:
    if len(chart.curves) < 2:
        return ""
    keys = (
        f'<span class="key c{number}">{html.escape(curve.name)}</span>'
        for number, curve in enumerate(chart.curves, 1)
    )
    return f'<span class="keys">{"".join(keys)}</span>'


def _summary(chart: Chart) -> str:
    """Say in words where each line begins and ends, for who cannot see it."""
    told = []
    for curve in chart.curves:
        if curve.points:
            ends = " to ".join(_told(curve.points[place][1], chart.percent) for place in (0, -1))
            told.append(f"{curve.name} from {ends}")
    return ", ".join(told)


def _told(value: float, percent: bool) -> str:
    return f"{value:.0%}" if percent else f"{value:.4g}"
