"""The picture of a fleet's drift: one page, no script, that needs no other file.

Of each group what the devices answer now beside what they answered before, and how far their blocks were from
that over time. It has the style of the hub's pages.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.resources import files

import numpy as np
from markupsafe import Markup, escape

from edgewright_fleet.hub.chart import Line, line_chart
from edgewright_fleet.retraining.triggers.groups import GroupDrift
from edgewright_fleet.retraining.triggers.history import DeviceDrift

POINTS = 160
"""Of a line over time."""
MOST_GROUPS = 40
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 640, 160, 56, 22, 8
_STYLE = ".bar-0 { fill: var(--gone); } .bar-1 { fill: var(--busy); }"


def draw(fleet: str, groups: Sequence[tuple[GroupDrift, Sequence[DeviceDrift]]], at_s: float) -> str:
    """The page as HTML: groups with their devices."""
    style = files("edgewright_fleet.hub").joinpath("static/style.css").read_text(encoding="utf-8")
    parts = [_section(group, devices) for group, devices in groups[:MOST_GROUPS]]
    if len(groups) > MOST_GROUPS:
        parts.append(Markup("<p>{} smaller groups are not drawn.</p>").format(len(groups) - MOST_GROUPS))
    body = Markup("").join(parts) or Markup("<p>No device has sent a sketch yet.</p>")
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at_s))
    return str(
        Markup(
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Drift of {fleet}</title>'
            "<style>{style}</style></head><body><main><h1>Drift of {fleet}</h1>"
            '<p class="small">As of {when}. Measured on the devices.</p>{body}</main></body></html>\n'
        ).format(fleet=fleet, style=Markup(style + _STYLE), when=when, body=body)  # noqa: S704 - our own file
    )


def course(devices: Sequence[DeviceDrift]) -> list[Line]:
    """How far the devices' blocks were from what came before, over time."""
    points = np.concatenate([np.empty((0, 2)), *(device.course for device in devices)])
    points = points[np.argsort(points[:, 0], kind="stable")]
    if len(points) < 2 or points[0, 0] == points[-1, 0]:
        return []
    place = ((points[:, 0] - points[0, 0]) / (points[-1, 0] - points[0, 0]) * (POINTS - 1)).astype(int)
    starts = np.flatnonzero(np.diff(place, prepend=-1))
    parts = np.split(points, starts[1:])
    return [
        Line(label, [(float(part[-1, 0]), float(np.quantile(part[:, 1], share))) for part in parts])
        for label, share in (("median device", 0.5), ("90th percentile", 0.9))
    ]


def class_bars(group: GroupDrift) -> Markup:
    """Shares of the classes before and now, as bars side by side; empty where the model classifies nothing."""
    before, now = group.classes_before, group.classes_now
    if not before or not now:
        return Markup()
    top = max(*before, *now)
    step = (WIDTH - LEFT - 8) / len(now)
    tall = HEIGHT - BOTTOM - TOP
    parts = []
    for mark in (0.0, top / 2, top):
        y = HEIGHT - BOTTOM - mark / top * tall
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - 8}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{100 * mark:.3g} %</text>'
        )
    for number, pair in enumerate(zip(before, now, strict=True)):
        left = LEFT + step * (number + 0.12)
        for side, share in enumerate(pair):
            height = share / top * tall
            parts.append(
                f'<rect class="bar-{side}" x="{left + side * step * 0.38:.1f}" y="{HEIGHT - BOTTOM - height:.1f}" '
                f'width="{step * 0.36:.1f}" height="{height:.1f}"/>'
            )
        parts.append(
            f'<text class="tick" x="{LEFT + step * (number + 0.5):.1f}" y="{HEIGHT - 6}" text-anchor="middle">'
            f"{number}</text>"
        )
    said = "; ".join(
        f"class {i}: {a:.1%} before, {b:.1%} now" for i, (a, b) in enumerate(zip(before, now, strict=True))
    )
    return Markup(  # noqa: S704 - numbers of our own
        '<figure class="chart"><figcaption>Share of the answers by class: grey before, blue now</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{said}">{"".join(parts)}</svg></figure>'
    )


def _section(group: GroupDrift, devices: Sequence[DeviceDrift]) -> Markup:
    said = f"{group.drifting} of {group.settled} settled devices drift ({group.share:.0%})"
    if group.flapping:
        said += f", {group.flapping} flap"
    if group.psi is not None and group.distance is not None:
        said += (
            f". Pooled: population stability index {group.psi:.3f}, Jensen–Shannon distance {group.distance:.3f}, "
            f"{group.samples_now:,} inferences against {group.samples_before:,}"
        )
    chart = line_chart(
        "Distance of the devices' blocks from before, less what chance gives", "PSI", course(devices)
    )
    title = f"{group.by} {group.group}, {group.model}"
    return Markup("<h2>{}</h2><p>{}.</p>{}{}").format(escape(title), said, class_bars(group), chart)
