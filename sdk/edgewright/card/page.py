"""The card as one HTML page that asks nothing of anyone else, with a picture of every group's interval."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from edgewright.artifact.comparison import GroupComparison, SetComparison
from edgewright.artifact.model_card import ModelCard
from edgewright.card.order import by_need, reach
from edgewright.card.sections import Section, sections, title

MOST_GROUPS = 60
"""Groups that are drawn of a data set, the worst first."""
_LEFT, _RIGHT, _WIDTH, _ROW, _TOP = 170.0, 470.0, 640.0, 20.0, 26.0
_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --text: #1c2430; --soft: #5b6778; --line: #d4dbe4;
  --good: #14713d; --bad: #b3261e; --open: #96600a; --grey: #6b7889; }
@media (prefers-color-scheme: dark) { :root { --ground: #12161c; --text: #e4e9f0; --soft: #9aa7b8; --line: #333d4a;
  --good: #58c98a; --bad: #ff7b72; --open: #e3b341; --grey: #9aa7b8; } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem; color: var(--text);
  background: var(--ground); overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: .5rem 0; } h2 { font-size: 1.2rem; margin: 2rem 0 .4rem; } p { margin: .3rem 0; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: 13px; min-width: 44rem; }
th, td { padding: .25rem .8rem .25rem 0; text-align: left; vertical-align: top; min-width: 5rem;
  border-bottom: 1px solid var(--line); overflow-wrap: normal; }
.pass, .better { color: var(--good); font-weight: 600; } .fail, .worse { color: var(--bad); font-weight: 600; }
.inconclusive { color: var(--open); font-weight: 600; } .soft, figcaption { color: var(--soft); font-size: 13px; }
figure { margin: 1rem 0; } svg { width: 100%; max-width: 52rem; height: auto; display: block; }
svg text { font: 11px system-ui, sans-serif; fill: var(--text); } svg .tick { fill: var(--soft); }
.grid { stroke: var(--line); } .nought { stroke: var(--soft); }
.interval { stroke-width: 3; stroke-linecap: round; stroke: var(--grey); } .dot { fill: var(--grey); }
.up { stroke: var(--good); fill: var(--good); } .down { stroke: var(--bad); fill: var(--bad); }
"""


def page(card: ModelCard) -> str:
    """The whole page."""
    body = [f"<h1>{escape(title(card))}{_word(card)}</h1>"]
    for section in sections(card):
        body.append(f"<h2>{escape(section.title)}</h2>")
        body += [f"<p>{escape(line)}</p>" for line in section.lines]
        if section.rows:
            body.append(_table(section))
        body += [_picture(name, one) for name, one in section.drawn]
    return (
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{escape(title(card))}</title>"
        '<meta name=viewport content="width=device-width,initial-scale=1">'
        f"<style>{_STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def _word(card: ModelCard) -> str:
    if card.comparison is None:
        return ""
    verdict = card.comparison.verdict
    by_hand = ", promoted by hand" if card.decision.by == "hand" else ""
    return f": <span class={verdict}>{verdict}</span>{by_hand}"


def _table(section: Section) -> str:
    head = "".join(f"<th>{escape(column)}" for column in section.columns)
    rows = []
    for row in section.rows:
        cells = (
            f"<td class={cell}>{cell}" if cell in ("pass", "fail", "inconclusive") else f"<td>{escape(cell)}"
            for cell in row
        )
        rows.append(f"<tr>{''.join(cells)}")
    return f"<div class=scroll><table><tr>{head}{''.join(rows)}</table></div>"


def _picture(name: str, one: SetComparison) -> str:
    groups, left = by_need(one.groups, MOST_GROUPS)
    ends = reach(groups)
    height = _TOP + _ROW * len(groups) + 4

    def x(share: float) -> float:
        return (_LEFT + _RIGHT) / 2 + share / ends * (_RIGHT - _LEFT) / 2

    parts = [
        f"<line class={'grid' if share else 'nought'} x1={x(share):.1f} x2={x(share):.1f} y1={_TOP - 6} "
        f"y2={height} />"
        f"<text class=tick x={x(share):.1f} y=14 text-anchor=middle>{_tick(share)}</text>"
        for share in (-ends, -ends / 2, 0.0, ends / 2, ends)
    ]
    for number, group in enumerate(groups):
        parts += _row(group, _TOP + _ROW * (number + 0.5), x(group.low), x(group.change), x(group.high))
    weighted = ", weighted" if one.weighted else ""
    more = f"; {left} more are in --json" if left else ""
    what = f"{name}, {one.data} data{weighted}: candidate − serving, samples"
    caption = f"{what}; intervals hold together with 95 %{more}"
    return (
        f"<figure><figcaption>{escape(caption)}</figcaption><svg viewBox='0 0 {_WIDTH:.0f} {height:.0f}' role=img "
        f"aria-label='{escape(caption)}'>{''.join(parts)}</svg></figure>"
    )


def _tick(share: float) -> str:
    return f"{share * 100:+.3g}" if share else "0"


def _row(group: GroupComparison, y: float, low: float, value: float, high: float) -> Iterator[str]:
    side = "up" if group.low > 0 else "down" if group.high < 0 else ""
    label = f"{group.by} {group.group}"
    shown = label if len(label) <= 28 else f"{label[:27]}…"
    said = f"{group.change * 100:+.1f} ({group.low * 100:+.1f} to {group.high * 100:+.1f}), {group.samples}"
    yield f"<text x={_LEFT - 8} y={y + 4:.1f} text-anchor=end>{escape(shown)}<title>{escape(label)}</title></text>"
    yield f"<line class='interval {side}' x1={low:.1f} x2={high:.1f} y1={y:.1f} y2={y:.1f} />"
    yield f"<circle class='dot {side}' cx={value:.1f} cy={y:.1f} r=4.5 />"
    yield f"<text x={_RIGHT + 10} y={y + 4:.1f}>{escape(said)}</text>"
