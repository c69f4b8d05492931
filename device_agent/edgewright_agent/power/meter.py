"""`EnergyMeter`: a sensor's readings over one reporting window, with the share that is idle taken off.

Idle power is the median over the last intervals between two readings in which no inference ran; it is absent
until there are enough of them, as on a device that is never at rest. Other work of the device counts as idle:
the figure above idle is what the inferences add to it.

Uncertainty: what the sensor's module states, and for readings of watts twice the standard error of their
mean, as what happens between two of them goes unseen. Above idle the sensor's offset cancels; twice the
standard error of the median (1.2533 s/√n, Kendall and Stuart, "The Advanced Theory of Statistics", vol. 1)
takes its place.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import dataclass, field, replace

from edgewright_agent.power.sensor import PowerSensor

IDLE_INTERVALS = 64
"""The idle intervals remembered: half a minute to some minutes, so that the figure follows the device's other
work."""
FEWEST_IDLE_INTERVALS = 8


@dataclass(frozen=True)
class Activity:
    """What was inferred since the start: how often, and for how many seconds in all."""

    inferences: int
    busy_s: float


@dataclass(frozen=True)
class EnergyFigure:
    """What one sensor measured over one window. What is not known is None."""

    sensor: str
    period_s: float
    seconds: float
    joules: float
    uncertainty_j: float | None
    idle_w: float | None = None
    above_idle_j: float | None = None
    above_idle_uncertainty_j: float | None = None

    @property
    def watts(self) -> float:
        """The mean power."""
        return self.joules / self.seconds


@dataclass(frozen=True)
class _IdleInterval:
    end_s: float
    watts: float


@dataclass
class _Window:
    joules: float = 0.0
    seconds: float = 0.0
    sensor_j: float | None = 0.0
    """How far the sensor may be off, None once it did not say."""
    watts: list[float] = field(default_factory=list)


@dataclass
class EnergyMeter:
    """One sensor, read no more often than is worth it. For one thread."""

    sensor: PowerSensor
    _due_s: float = -math.inf
    _seen: Activity = field(default_factory=lambda: Activity(0, 0.0))
    _idle: deque[_IdleInterval] = field(default_factory=lambda: deque(maxlen=IDLE_INTERVALS))
    _window: _Window = field(default_factory=_Window)

    def sample(self, now_s: float, activity: Activity) -> None:
        """Read the sensor if it is time to. `now_s` is by a monotonic clock."""
        if now_s < self._due_s:
            return
        self._due_s = now_s + self.sensor.period_s
        energy = self.sensor.read(now_s)
        before, self._seen = self._seen, activity
        if activity.inferences != before.inferences:
            # One that ended just now may have begun in intervals that looked idle then.
            begun_s = now_s - self.sensor.period_s - (activity.busy_s - before.busy_s)
            while self._idle and self._idle[-1].end_s > begun_s:
                self._idle.pop()
        if energy is None or energy.seconds <= 0:
            return
        watts = energy.joules / energy.seconds
        if activity.inferences == before.inferences:
            self._idle.append(_IdleInterval(now_s, watts))
        window = self._window
        window.joules += energy.joules
        window.seconds += energy.seconds
        window.watts.append(watts)
        off_w = self.sensor.uncertainty_w()
        if window.sensor_j is not None:
            window.sensor_j = None if off_w is None else window.sensor_j + off_w * energy.seconds

    def take(self) -> EnergyFigure | None:
        """The window since the last call, which ends it; None where the sensor gave nothing."""
        window, self._window = self._window, _Window()
        if not window.watts:
            return None
        unseen_j: float | None = 0.0
        if self.sensor.sampled:
            unseen_j = _twice_standard_error(window.watts)
            unseen_j = None if unseen_j is None else unseen_j * window.seconds
        figure = EnergyFigure(
            self.sensor.name,
            self.sensor.period_s,
            window.seconds,
            window.joules,
            None if window.sensor_j is None or unseen_j is None else window.sensor_j + unseen_j,
        )
        if len(self._idle) < FEWEST_IDLE_INTERVALS:
            return figure
        idle = [interval.watts for interval in self._idle]
        idle_w = statistics.median(idle)
        idle_off_w = 1.2533 * (_twice_standard_error(idle) or 0.0)
        return replace(
            figure,
            idle_w=idle_w,
            above_idle_j=window.joules - idle_w * window.seconds,
            above_idle_uncertainty_j=None if unseen_j is None else unseen_j + idle_off_w * window.seconds,
        )


def _twice_standard_error(values: list[float]) -> float | None:
    """Of the mean of independent values; None for fewer than two."""
    if len(values) < 2:
        return None
    return 2.0 * statistics.stdev(values) / math.sqrt(len(values))
