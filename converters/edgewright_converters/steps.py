"""`Steps`: which step of a conversion comes now, and about how long the rest will take.

The rest is what its steps take for a network of middling size, stretched by how much longer or shorter those of
this model have taken so far.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

OnStep = Callable[[int, int, str, float], None]
"""Told before each step: how many are done, how many there are, what comes now, and about how many seconds are
left with it."""
TYPICAL = {
    "read": 5.0,
    "export": 30.0,
    "min-max": 8.0,
    "layers alone": 1.0,
    "ranges": 10.0,
    "equalisation": 25.0,
    "bias correction": 8.0,
    "reconstruction": 18.0,
    "adaptive rounding": 300.0,
    "fine-tuning": 120.0,
    "mixed precision": 25.0,
    "quantise": 2.0,
    "verify": 20.0,
    "look": 10.0,
    "package": 1.0,
}
"""Seconds on two cores for EfficientNet-Lite0 with 256 calibration samples."""
VERIFY_S, VERIFY_SAMPLE_S = 10.0, 0.06
OTHER = 10.0
EVERY = 10.0
"""Seconds between two words about a long step: they may go into a log."""
PRIOR = 20.0
"""Seconds for which the typical ones are believed: the first steps alone say little of those that follow."""


class Steps:
    """Counts the steps of `plan`, by their keys in order, for whoever shows progress; a step may be left out."""

    def __init__(
        self, on_step: OnStep | None, plan: Sequence[str], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._on_step, self._plan, self._clock = on_step, tuple(plan), clock
        self._typical = dict(TYPICAL)
        self._started = clock()
        self._told = self._started
        self._behind = 0.0
        self._now: str | None = None

    def expect(self, key: str, seconds: float) -> None:
        """A step will typically take so long, which is known by now."""
        self._typical[key] = seconds

    def next(self, key: str, what: str) -> None:
        """The step before has ended, and `key` begins."""
        if self._now is not None:
            self._behind += self._typical.get(self._now, OTHER)
        self._now, done = key, self._plan.index(key)
        self._told = self._clock()
        if self._on_step is not None:
            self._on_step(done, len(self._plan), what, self._ahead(done))

    def during(self, what: str, seconds: float) -> None:
        """A long step is under way and takes so many seconds more."""
        assert self._now is not None
        done = self._plan.index(self._now)
        if self._on_step is not None and self._clock() - self._told >= EVERY:
            self._told = self._clock()
            self._on_step(done, len(self._plan), what, seconds + self._ahead(done + 1))

    def _ahead(self, done: int) -> float:
        typical = sum(self._typical.get(step, OTHER) for step in self._plan[done:])
        stretch = (self._clock() - self._started + PRIOR) / (self._behind + PRIOR)
        return typical * stretch
