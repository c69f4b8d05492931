"""The card as text: lines for a terminal, and Markdown. Group intervals are drawn with characters in both."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from edgewright.artifact.comparison import SetComparison
from edgewright.artifact.model_card import ModelCard
from edgewright.card.order import by_need, reach
from edgewright.card.sections import Section, sections, title

HALF = 20
"""Characters on each side of nought."""
TERMINAL_GROUPS = 6


def card_lines(card: ModelCard) -> list[str]:
    """For a terminal: what was decided, and why; `--card` writes the rest."""
    lines = [title(card)]
    for section in sections(card):
        lines.append(f"  {section.title}")
        lines += [f"    {line}" for line in section.lines]
        for row in section.rows:
            named = (
                f"{c}: {v}" for c, v in zip(section.columns[1:], row[1:], strict=True) if v not in ("", "–")
            )
            lines.append(f"    {row[0]}; {'; '.join(named)}")
        for name, one in section.drawn:
            lines += [
                f"    {name}, {one.data}",
                *(f"      {line}" for line in _intervals(one, TERMINAL_GROUPS)),
            ]
    return lines


def markdown(card: ModelCard) -> str:
    """The whole card."""
    parts = [f"# {_plain(title(card))}"]
    for section in sections(card):
        parts.append(f"## {section.title}")
        parts += [_plain(line) for line in section.lines]
        if section.rows:
            parts.append("\n".join(_table(section)))
        for name, one in section.drawn:
            # Four spaces make it a block of code, whatever characters a group's name has.
            drawn = textwrap.indent("\n".join(_intervals(one, None)), "    ")
            parts += [_plain(f"{name}, {one.data}:"), drawn]
    return "\n\n".join(parts) + "\n"


def _intervals(one: SetComparison, most: int | None) -> Iterator[str]:
    """A line a group, worst first: its interval on a line of characters with `|` at nought, and the figures."""
    groups, left = by_need(one.groups, most)
    ends = reach(groups)
    width = max((len(f"{g.by} {_line(g.group)}") for g in groups), default=0)
    yield f"{'':{width}}  {-ends * 100:<+{HALF}.3g} {ends * 100:>+{HALF}.3g}"

    def at(share: float) -> int:
        return HALF + round(share / ends * HALF)

    for group in groups:
        track = [" "] * (2 * HALF + 1)
        track[HALF] = "|"
        for place in range(at(group.low), at(group.high) + 1):
            track[place] = "─" if place != HALF else "┼"
        track[at(group.change)] = "●"
        figures = f"{group.change * 100:+.2f} ({group.low * 100:+.2f} to {group.high * 100:+.2f})"
        yield f"{f'{group.by} {_line(group.group)}':{width}}  {''.join(track)}  {figures}, {group.samples} samples"
    if left:
        yield f"{left} more; --json lists all"


def _table(section: Section) -> Iterator[str]:
    yield _row(section.columns)
    yield _row(["---"] * len(section.columns))
    for row in section.rows:
        yield _row([_plain(cell) for cell in row])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is: what people and data wrote is no markup."""
    escaped = "".join(f"\\{c}" if c in "\\`*_[]<>#|!&~" else c for c in _line(text))
    return f"\\{escaped}" if escaped.startswith(("-", "+")) else escaped


def _line(text: str) -> str:
    return " ".join(text.split())
