"""Daly's interval against the exact expectation that it approximates."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.retraining.interval import Run


def run(blocked_s: float, failure_s: float, *, written_s: float = 0.0, restart_s: float = 0.0) -> Run:
    """One rank whose checkpoint takes training so long: a store without end unless it is written for longer."""
    size = 12.0
    return Run(1, 1, failure_s, size / blocked_s, size / written_s if written_s else math.inf, restart_s)


def exact_time(interval_s: float, blocked_s: float, failure_s: float) -> float:
    """Seconds for a second of progress, failures being memoryless (Daly 2006, eq. 20, without restarts)."""
    return failure_s / interval_s * math.expm1((interval_s + blocked_s) / failure_s)


@given(blocked_s=st.floats(0.01, 60), rarely=st.floats(20, 1e5))
def test_no_interval_is_better_than_dalys(blocked_s: float, rarely: float) -> None:
    one = run(blocked_s, blocked_s * rarely)
    at_dalys = exact_time(one.daly_s, blocked_s, one.failure_s)
    best = min(exact_time(one.daly_s * factor / 100, blocked_s, one.failure_s) for factor in range(20, 500))
    assert at_dalys - 1 <= (best - 1) * 1.001
    assert one.young_s == pytest.approx(math.sqrt(2 * blocked_s * one.failure_s))


def test_what_is_lost_is_half_an_interval_the_unwritten_one_and_the_restart() -> None:
    one = run(0.5, 3600, written_s=4, restart_s=6)
    assert one.lost(100) == pytest.approx(0.5 / 100 + (50 + 4 + 6) / 3600)
    assert one.lost(1) == one.lost(4), "an interval that the store cannot follow"
