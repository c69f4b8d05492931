"""Where a climb of the ladder stands: the best decision so far, what it came to, and how a candidate is judged.

`ladder` says which rungs there are to climb and what each makes of a decision.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from edgewright.errors import ConversionError
from edgewright_converters.execution import Execution
from edgewright_converters.observation import TensorStatistics
from edgewright_converters.quantise.decision import Decision
from edgewright_converters.rungs import SECONDS, Effort, Rung, climbed
from edgewright_converters.trial import Goal, Trial

Array = NDArray[Any]


@dataclass(frozen=True)
class Attempt:
    """A rung that was tried: what the target made of it, whether it was kept, and the seconds it took."""

    rung: str
    trial: Trial
    kept: bool
    seconds: float


@dataclass(frozen=True)
class Fit:
    """Samples that a decision is fitted on: so many of them, by names in the graph, as often as it is called."""

    samples: Callable[[int], Iterable[Mapping[str, Array]]]
    count: int


Try = Callable[[Sequence[Decision]], Trial]
"""Quantises the decisions, one for each fit, runs each as the target does on samples that its fit does not hold,
and measures what they come to together."""
Make = Callable[[Fit, Decision], Decision]
"""What a rung makes of a decision, fitted on samples."""


@dataclass(frozen=True)
class Base:
    """A decision, and its likes for each fit."""

    whole: Decision
    fitted: Sequence[Decision]


@dataclass
class Ascent:
    """A climb on its way.

    Candidates are fitted on each of `fits` and judged by `attempt`. Where there are several, what a kept rung
    makes of all `samples` is the decision.
    """

    samples: Fit
    fits: Sequence[Fit]
    attempt: Try
    goal: Goal
    effort: Effort
    on_rung: Callable[[Rung], None]
    execution: Execution
    """Of the float graph that decisions repair."""
    statistics: Mapping[str, TensorStatistics]
    best: Base
    trial: Trial
    """Of `best`."""
    started: float
    attempts: list[Attempt] = field(default_factory=list)
    begun: float = 0.0
    """When the attempt that is being made began."""

    def begin(self, rung: Rung) -> None:
        """Announce a rung, and count its seconds from now on."""
        self.on_rung(rung)
        self.begun = time.perf_counter()

    def allows(self, rung: Rung) -> bool:
        return rung in climbed(self.effort)

    def seconds_left(self) -> float:
        """Of the effort: no rung starts without."""
        return SECONDS[self.effort] - (time.perf_counter() - self.started)

    def spent(self) -> bool:
        return self.seconds_left() < 0

    def done(self) -> bool:
        return self.goal.met(self.trial) or self.spent()

    def ample(self) -> bool:
        return self.goal.ample(self.trial) or self.spent()

    def better(self, tried: Trial, worth_db: float = 0.0) -> bool:
        return tried.sqnr_db >= self.trial.sqnr_db + worth_db

    def judge(
        self, rung: Rung, make: Make, good: Callable[[Trial], bool] | None = None, base: Base | None = None
    ) -> bool:
        """Make a candidate of `base`, by default the best, and keep it where it is `good`, by default better."""
        base = base or self.best
        fitted = [make(fit, decision) for fit, decision in zip(self.fits, base.fitted, strict=True)]
        try:
            tried = self.attempt(fitted)
        except ConversionError:
            return False  # a repair that the target does not take is none
        kept = (good or self.better)(tried)
        if kept:
            whole = fitted[0] if len(self.fits) == 1 else make(self.samples, base.whole)
            self.best, self.trial = Base(whole, fitted), tried
        now = time.perf_counter()
        self.attempts.append(Attempt(rung.name, tried, kept, now - self.begun))
        self.begun = now
        return kept
