"""What a new release must not do while it is watched: fail, hang, slow the device down, heat it up.

The rules are pure: from what was counted and measured to a reason, or None. `update` asks them. Errors, hangs
and heat are asked about all the time, latency once, when the time is over, so that its false-alarm probability
is that of one test.
"""

from __future__ import annotations

import contextlib
import faulthandler
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from edgewright.figures import seconds

MIN_WATCHED_INFERENCES = 5
"""Below this an error share says nothing, unless no inference at all succeeded."""
FALSE_ALARM = 1e-3
"""Probability that latencies which are within the limit are taken for a regression, where they are independent."""
LEAST_SLOWDOWN_S = 1e-3
"""A median that grew by less is no reason to go back, whatever its ratio: caches and schedulers do that."""
HEAT_SAMPLE_S = 1.0
HEAT_SAMPLES = 5
"""Readings that must agree: one may be a spike of the sensor or of another process."""


@dataclass(frozen=True)
class HeatReading:
    """One look at the device's sensors; None: there is no such sensor."""

    celsius: float | None = None
    throttled: bool | None = None


ReadHeat = Callable[[], HeatReading]


def no_heat_sensor() -> HeatReading:
    """For a device without sensors."""
    return HeatReading()


def error_reason(errors: int, inferences: int, limit: float, *, over: bool) -> str | None:
    """Too large a share of errors, or nothing but errors when the time is over."""
    if inferences >= MIN_WATCHED_INFERENCES:
        failed = errors > limit * inferences
    else:
        failed = over and errors > 0 and errors >= inferences
    seen = f"{errors} of {inferences} inferences failed while watching"
    return f"{seen}, more than {limit:.0%}" if failed else None


def hang_reason(longest_running_s: float, limit_s: float) -> str | None:
    """An inference that does not end."""
    if longest_running_s <= limit_s:
        return None
    return f"an inference did not end within {limit_s:g} s while watching"


def latency_reason(
    before: Sequence[float], now: Sequence[float], *, max_slowdown: float, budget_s: float | None
) -> str | None:
    """A median latency that is certainly beyond `max_slowdown` times the one before, or beyond the budget.

    Certain is a lower confidence bound of the new median over an upper one of the old, each of them an order
    statistic (David & Nagaraja 2003, "Order Statistics", section 7.1), which holds for any distribution: the
    probability of a false alarm is at most `FALSE_ALARM` for independent latencies. Too few of them are no reason.
    """
    if max_slowdown == 0 or (low := median_bounds(now)) is None:
        return None
    if budget_s is not None and low[0] > budget_s:
        return f"half of the inferences took more than the budget of {seconds(budget_s)}: {_median(now)}"
    old = median_bounds(before)
    if old is None or low[0] <= max(max_slowdown * old[1], old[1] + LEAST_SLOWDOWN_S):
        return None
    return f"latency rose from {_median(before)} to {_median(now)}, more than {max_slowdown:g} times"


def _median(latencies: Sequence[float]) -> str:
    return f"{seconds(statistics.median(latencies))} (median of {len(latencies)})"


def median_bounds(samples: Sequence[float]) -> tuple[float, float] | None:
    """A confidence interval of the median; each side is wrong with at most half of `FALSE_ALARM`."""
    n, tail, rank = len(samples), 0.0, 0
    # The rank-th smallest lies above the median only if fewer than `rank` samples lie below it.
    while rank < n:
        choices = math.lgamma(n + 1) - math.lgamma(rank + 1) - math.lgamma(n - rank + 1)
        tail += math.exp(choices - n * math.log(2))
        if tail > FALSE_ALARM / 2:
            break
        rank += 1
    if rank == 0:
        return None
    ordered = sorted(samples)
    return ordered[rank - 1], ordered[n - rank]


class HeatWatch:
    """Compares the device's heat with what it was before the update."""

    def __init__(self, read: ReadHeat, max_heating_c: float) -> None:
        self._read = read
        self._limit_c = max_heating_c
        self._before = read() if max_heating_c else HeatReading()
        self._readings: list[HeatReading] = []
        self._due = time.monotonic()

    def reason(self) -> str | None:
        """Whether the newest readings all say that the device throttles, or is too hot, and did not before."""
        if self._limit_c == 0 or time.monotonic() < self._due:
            return None
        self._due = time.monotonic() + HEAT_SAMPLE_S
        self._readings = [*self._readings[1 - HEAT_SAMPLES :], self._read()]
        return heat_reason(self._before, self._readings, self._limit_c)


def heat_reason(before: HeatReading, readings: Sequence[HeatReading], limit_c: float) -> str | None:
    """The rule of `HeatWatch`: every one of at least `HEAT_SAMPLES` readings must say the same."""
    if len(readings) < HEAT_SAMPLES:
        return None
    if before.throttled is False and all(reading.throttled for reading in readings):
        return "the device throttles since the release is served"
    known = [reading.celsius for reading in readings if reading.celsius is not None]
    if before.celsius is not None and len(known) == len(readings):
        heating = min(known) - before.celsius
        if heating > limit_c:
            return f"the device is {heating:.0f} °C hotter than before the update, more than {limit_c:g} °C"
    return None


@contextlib.contextmanager
def exits_when_wedged(limit_s: float) -> Iterator[Callable[[], None]]:
    """End this process when neither the block ends nor the function that it gets is called for `limit_s` seconds.

    Native code that never returns and holds the interpreter's lock stops every Python thread. The timer is a
    thread of faulthandler's that needs no lock; it writes where each thread is, and the exit code is 1.
    """

    armed_until = 0.0

    def alive() -> None:
        nonlocal armed_until
        # Arming starts a thread, so not at every call.
        if time.monotonic() > armed_until - limit_s * 0.75:
            armed_until = time.monotonic() + limit_s
            faulthandler.dump_traceback_later(limit_s, exit=True, file=2)

    alive()
    try:
        yield alive
    finally:
        faulthandler.cancel_dump_traceback_later()
