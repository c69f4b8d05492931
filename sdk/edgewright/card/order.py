"""Which groups of a comparison a reader sees first, and on what scale."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgewright.artifact.comparison import GroupComparison


def by_need(groups: Sequence[GroupComparison], most: int | None) -> tuple[tuple[GroupComparison, ...], int]:
    """The groups by the upper end of their interval, the worst first, and how many are left out."""
    ordered = sorted(groups, key=lambda group: (group.high, group.change))
    shown = tuple(ordered[:most])
    return shown, len(ordered) - len(shown)


def reach(groups: Sequence[GroupComparison]) -> float:
    """The share up to which the scale goes on both sides of nought: a round one."""
    most = max((max(-group.low, group.high) for group in groups), default=0.0) or 0.01
    power = 10.0 ** math.floor(math.log10(most))
    return min(
        1.0, next(power * factor for factor in (1, 2, 4, 6, 10) if power * factor >= most * (1 - 1e-9))
    )
