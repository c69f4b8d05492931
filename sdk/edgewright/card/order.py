"""Which groups of a comparison a reader sees first, and on what scale."""

from __future__ import annotations

from collections.abc import Sequence

from edgewright.artifact.comparison import GroupComparison


def by_need(groups: Sequence[GroupComparison], most: int | None) -> tuple[tuple[GroupComparison, ...], int]:
    """The groups by the upper end of their interval, the worst first, and how many are left out."""
    ordered = sorted(groups, key=lambda group: (group.high, group.change))
    shown = tuple(ordered[:most])
    return shown, len(ordered) - len(shown)


def reach(groups: Sequence[GroupComparison]) -> float:
    """The share up to which the scale goes on both sides of nought."""
    return max((max(-group.low, group.high) for group in groups), default=0.0) or 0.01
