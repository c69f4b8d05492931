"""A scatter plot as SVG: points with short labels that keep apart, a front through some of them, plain axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 420.0, 270.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 404.0, 14.0, 228.0
_LABEL_HEIGHT = 12.0
_MARK = 6.0
"""Half a mark's width."""


@dataclass(frozen=True)
class Point:
    """A point: its kind is its class in the style sheet, `what` is said when it is pointed at."""

    x: float
    y: float
    kind: str
    label: str
    what: str


@dataclass(frozen=True)
class Axis:
    """Maps values to places on the picture; `ticks` lie on round numbers."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        step = round_step((self.high - self.low) / 6)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [i * step for i in range(first, last + 1)]


def round_step(least: float) -> float:
    """The least of 1, 2, 2.5 and 5 times a power of ten that is at least so much."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= least * (1 - 1e-9))


def scatter(
    points: Sequence[Point],
    front: Sequence[tuple[float, float]],
    *,
    x_label: str,
    y_label: str,
    x_text: Callable[[float], str],
    beyond_text: str,
) -> str:
    """The picture. The x axis starts at nought; a y of infinity stands on a line above all others."""
    finite = [point.y for point in points if math.isfinite(point.y)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    pad = 0.12 * ((high - low) or abs(high) or 1.0)
    beyond = high + 2 * pad
    some_beyond = len(finite) < len(points)
    x = Axis(0.0, max(point.x for point in points) * 1.08 or 1.0, LEFT, RIGHT)
    y = Axis(low - pad, (beyond if some_beyond else high) + pad, BOTTOM, TOP)

    def place(across: float, up: float) -> tuple[float, float]:
        return x.at(across), y.at(up if math.isfinite(up) else beyond)

    parts = []
    for tick in y.ticks:
        if tick <= high + pad * 1e-6:
            parts.append(f"<line class=grid x1={LEFT} x2={RIGHT} y1={y.at(tick):.1f} y2={y.at(tick):.1f} />")
            parts.append(_text(LEFT - 6, y.at(tick) + 4, f"{tick:.4g}", "end"))
    if some_beyond:
        parts.append(f"<line class=grid x1={LEFT} x2={RIGHT} y1={y.at(beyond):.1f} y2={y.at(beyond):.1f} />")
        parts.append(_text(LEFT - 6, y.at(beyond) + 4, beyond_text, "end"))
    parts += [_text(x.at(t), BOTTOM + 15, x_text(t) if t else "0", "middle") for t in x.ticks]
    parts.append(f"<line class=axis x1={LEFT} x2={RIGHT} y1={BOTTOM} y2={BOTTOM} />")
    parts.append(_text((LEFT + RIGHT) / 2, HEIGHT - 8, x_label, "middle"))
    if front:
        corners = [place(*front[0])]
        for point in front[1:]:
            across, up = place(*point)
            corners += [(across, corners[-1][1]), (across, up)]
        corners.append((RIGHT, corners[-1][1]))
        parts.append(f"<polyline class=front points='{' '.join(f'{a:.1f},{b:.1f}' for a, b in corners)}' />")
    places = [place(point.x, point.y) for point in points]
    parts += [_mark(point, *at) for point, at in zip(points, places, strict=True)]
    parts += labels([point.label for point in points], places)
    return (
        f"<div class=card><h3>{escape(y_label)}</h3><svg viewBox='0 0 {WIDTH:.0f} {HEIGHT:.0f}' role=img "
        f"aria-label='{escape(y_label)}, {escape(x_label)}'>{''.join(parts)}</svg></div>"
    )


def labels(texts: Sequence[str], places: Sequence[tuple[float, float]]) -> list[str]:
    """A label beside each point, one for points on one spot; moved down off labels and points, with a line."""
    spots: dict[tuple[float, float], list[str]] = {}
    for text, (x, y) in zip(texts, places, strict=True):
        spot = next((s for s in spots if math.dist(s, (x, y)) < 5), (x, y))
        spots.setdefault(spot, []).append(text)
    taken = [(x - _MARK, x + _MARK, y) for x, y in spots]
    drawn = []
    for (x, y), shared in sorted(spots.items(), key=lambda one: one[0][1]):
        text = ", ".join(dict.fromkeys(shared))
        width = 6.5 * len(text) + 2
        # At the right edge a label stands to the left of its point.
        start = x + 8 if x + 8 + width < RIGHT + 10 else x - 8 - width
        down = y
        while hit := [
            t for t in taken if start < t[1] and t[0] < start + width and abs(down - t[2]) < _LABEL_HEIGHT
        ]:
            down = max(t[2] for t in hit) + _LABEL_HEIGHT
        taken.append((start, start + width, down))
        if down - y > 1:
            near = start if start > x else start + width
            drawn.append(f"<line class=axis x1={x:.1f} y1={y:.1f} x2={near:.1f} y2={down:.1f} />")
        drawn.append(f"<text class=label x={start:.1f} y={down + 4:.1f}>{escape(text)}</text>")
    return drawn


def _mark(point: Point, x: float, y: float) -> str:
    if point.kind == "float":
        shape = f"<rect class=float x={x - 4:.1f} y={y - 4:.1f} width=8 height=8>"
    elif point.kind == "final":
        shape = f"<path class=final d='M{x:.1f},{y - 6:.1f} l6,6 l-6,6 l-6,-6 z'>"
    else:
        shape = f"<circle class={point.kind} cx={x:.1f} cy={y:.1f} r=4>"
    end = "rect" if point.kind == "float" else "path" if point.kind == "final" else "circle"
    return f"{shape}<title>{escape(point.what)}</title></{end}>"


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f"<text x={x:.1f} y={y:.1f} text-anchor={anchor}>{escape(text)}</text>"
