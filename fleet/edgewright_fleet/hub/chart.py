"""Line charts as inline SVG: a device's latency, energy and temperature over time, drawn on the server.

No script and no style attribute, as the page's policy forbids both: colours are classes of the style sheet. A
chart is never more than `POINTS` points a line, so that a page has the same weight for an hour and for a
month.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

POINTS = 240
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 640, 180, 56, 22, 8


@dataclass(frozen=True)
class Line:
    """A named series of (Unix seconds, value), in order of time."""

    name: str
    points: Sequence[tuple[float, float]]


def line_chart(title: str, unit: str, lines: Sequence[Line]) -> Markup:
    """An SVG picture of the lines, with the figures as text for who cannot see it; empty without points."""
    drawn = [Line(line.name, _thinned(line.points)) for line in lines if line.points]
    if not drawn:
        return Markup()
    times = [t for line in drawn for t, _ in line.points]
    values = [v for line in drawn for _, v in line.points]
    first, last = min(times), max(max(times), min(times) + 1.0)
    ticks = _ticks(min(values), max(values))
    low, high = ticks[0], ticks[-1]

    def x(t: float) -> float:
        return LEFT + (t - first) / (last - first) * (WIDTH - LEFT - 8)

    def y(v: float) -> float:
        return HEIGHT - BOTTOM - (v - low) / (high - low) * (HEIGHT - BOTTOM - TOP)

    parts = [
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - 8}" y1="{y(t):.1f}" y2="{y(t):.1f}"/>'
        f'<text class="tick" x="{LEFT - 6}" y="{y(t) + 4:.1f}" text-anchor="end">{t:.6g}</text>'
        for t in ticks
    ]
    form = "%H:%M:%S" if last - first < 600 else "%H:%M" if last - first < 86400 else "%d %b %H:%M"
    for t, anchor in ((first, "start"), ((first + last) / 2, "middle"), (last, "end")):
        said = time.strftime(form, time.gmtime(t))
        parts.append(
            f'<text class="tick" x="{x(t):.1f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{said}</text>'
        )
    for number, line in enumerate(drawn):
        path = " ".join(f"{x(t):.1f},{y(v):.1f}" for t, v in line.points)
        parts.append(f'<polyline class="line line-{number}" points="{path}"/>')
        t, v = line.points[-1]
        parts.append(f'<circle class="dot dot-{number}" cx="{x(t):.1f}" cy="{y(v):.1f}" r="3"/>')
    said = "; ".join(f"{line.name}: now {line.points[-1][1]:.3g} {unit}" for line in drawn)
    legend = "".join(
        f'<span class="key key-{n}">{escape(line.name)} {line.points[-1][1]:.3g} {escape(unit)}</span>'
        for n, line in enumerate(drawn)
    )
    return Markup(  # noqa: S704 - numbers of our own, and text that is escaped
        f'<figure class="chart"><figcaption>{escape(title)}, {escape(unit)}{legend}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(f"{title}. {said}")}">'
        f"{''.join(parts)}</svg></figure>"
    )


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """At most `POINTS` points, of each stretch the highest, so that a peak is never lost."""
    if len(points) <= POINTS:
        return points
    step = math.ceil(len(points) / POINTS)
    return [max(points[i : i + step], key=lambda point: point[1]) for i in range(0, len(points), step)]


def _ticks(low: float, high: float) -> list[float]:
    """Round values from below the lowest to above the highest, four or five of them."""
    span = (high - low) or abs(high) * 0.2 or 1.0
    step = 10.0 ** math.floor(math.log10(span / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 4)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [i * step for i in range(first, max(last, first + 1) + 1)]
