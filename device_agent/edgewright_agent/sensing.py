"""`Sensing`: what the device draws, how hot it is and what its model sees, sampled in a thread of its own.

A sensor may hang, as firmware that does not answer; no inference waits for it.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgewright.telemetry import names
from edgewright.telemetry.otlp import Value
from edgewright_agent.drift import DriftWatch
from edgewright_agent.exporter import Exporter
from edgewright_agent.heat import Heat, zone_temperatures
from edgewright_agent.inference import Served
from edgewright_agent.power import find_sensor
from edgewright_agent.power.meter import Activity, EnergyFigure, EnergyMeter
from edgewright_agent.watch import HeatReading
from edgewright_profiles.profile import HardwareProfile

HEAT_PERIOD_S = 1.0
"""Between two looks at the signs of throttling: some files of sysfs, and how late the tag of a duration may
be."""


@dataclass(frozen=True)
class PowerEstimate:
    """What the profile says a device without a sensor draws. Never a measurement, and never reported as
    one."""

    profile: str
    idle_w: float
    loaded_w: float
    cores: int

    @staticmethod
    def of(profile: HardwareProfile) -> PowerEstimate | None:
        """None where the profile does not say."""
        known = profile.no_power_sensor
        if known is None or known.idle_w is None or known.loaded_w is None:
            return None
        cores = sum(cluster.count for cluster in profile.cores)
        return PowerEstimate(profile.name, known.idle_w, known.loaded_w, cores)

    def above_idle_j(self, busy_s: float, threads: int) -> float:
        """Joules of inferences that took `busy_s`, with the power of each core taken to be the same."""
        return (self.loaded_w - self.idle_w) * busy_s * min(1.0, threads / self.cores)


class Sensing:
    """The sensors of one device. `run` is a thread's work; `report` may come from another."""

    def __init__(
        self,
        exporter: Exporter,
        current: Callable[[], Served | None],
        profile: HardwareProfile,
        *,
        threads: int,
        root: Path = Path("/"),
    ) -> None:
        """`current` gives what is served, `threads` those of its runtime; `root` is where sysfs begins."""
        self._exporter, self._current, self._threads = exporter, current, threads
        sensor = find_sensor(root)
        self._meter = None if sensor is None else EnergyMeter(sensor)
        self._estimate = PowerEstimate.of(profile) if sensor is None else None
        self._heat = Heat.find(root)
        self.period_s = HEAT_PERIOD_S if sensor is None else min(HEAT_PERIOD_S, sensor.period_s)
        """Between two calls of `sample`."""
        self._lock = threading.Lock()
        self._watch: DriftWatch | None = None
        self._activity = Activity(0, 0.0)
        self._heat_s = self._reported_s = time.monotonic()
        self._throttled: bool | None = None
        self._throttled_s = self._busy_s = 0.0

    def run(self, stopping: threading.Event) -> None:
        """Sample until `stopping` is set."""
        while not stopping.wait(self.period_s):
            self.sample(time.monotonic())

    def sample(self, now_s: float) -> None:
        """Read what it is time to read."""
        with self._lock:
            served = self._current()
            self._follow(served, now_s)
            if self._meter is not None:
                self._meter.sample(now_s, self._activity)
            if now_s - self._heat_s >= HEAT_PERIOD_S:
                self._look_at_heat(now_s)
            if self._watch is not None:
                self._watch.add_up()

    def report(self, now_s: float, *, last: bool = False) -> None:
        """Put the window since the last call into the next payload; `last` sends what would wait for
        later."""
        with self._lock:
            self._report_energy(now_s)
            self._report_heat(now_s)
            if self._watch is not None:
                self._watch.report(self._exporter, now_s, last=last)

    def heat(self) -> HeatReading:
        """How hot the device is, and whether it was slowed down at the last look, for the watch of an update."""
        hottest = max(zone_temperatures(self._heat.root).values(), default=None)
        return HeatReading(hottest, self._throttled)

    def _follow(self, served: Served | None, now_s: float) -> None:
        watch = None if served is None else served.drift
        if watch is not self._watch:
            if self._watch is not None:
                self._watch.report(self._exporter, now_s, last=True)
            self._watch = watch
            self._activity = Activity(0, 0.0)
        if served is not None:
            activity = Activity(served.tally.inferences, served.spent.durations.run)
            self._busy_s += activity.busy_s - self._activity.busy_s
            self._activity = activity

    def _look_at_heat(self, now_s: float) -> None:
        # What is known now is taken to hold since the last look.
        since_s, self._heat_s = now_s - self._heat_s, now_s
        reasons = self._heat.throttling(now_s)
        self._throttled = None if reasons is None else bool(reasons)
        self._throttled_s += since_s if self._throttled else 0.0
        self._exporter.set_throttled(bool(self._throttled))

    def _report_energy(self, now_s: float) -> None:
        window_s, self._reported_s = now_s - self._reported_s, now_s
        busy_s, self._busy_s = self._busy_s, 0.0
        figure = None if self._meter is None else self._meter.take()
        if figure is not None:
            record_energy(self._exporter, figure)
        if self._estimate is not None:
            by: dict[str, Value] = {names.SENSOR: f"profile {self._estimate.profile}"}
            above_idle_j = self._estimate.above_idle_j(busy_s, self._threads)
            whole_j = self._estimate.idle_w * window_s + above_idle_j
            self._exporter.add(names.ENERGY_ESTIMATED, "J", whole_j, by)
            self._exporter.add(names.ENERGY_ESTIMATED_ABOVE_IDLE, "J", above_idle_j, by)

    def _report_heat(self, now_s: float) -> None:
        reading = self._heat.read(now_s)
        if reading.hottest is not None:
            zone, degrees = reading.hottest
            self._exporter.set(names.TEMPERATURE, "Cel", degrees, {names.SENSOR: zone})
        for core, hertz in reading.frequencies_hz.items():
            self._exporter.set(names.CPU_FREQUENCY, "Hz", hertz, {names.LOGICAL_CPU: str(core)})
        throttled_s, self._throttled_s = self._throttled_s, 0.0
        if throttled_s:
            self._exporter.add(names.THROTTLED_TIME, "s", throttled_s)


def record_energy(exporter: Exporter, figure: EnergyFigure) -> None:
    """One window's figure; what is not known is left out."""
    by: dict[str, Value] = {names.SENSOR: figure.sensor}
    exporter.record_energy(_rounded(figure.joules), figure.sensor)
    for name, unit, value in (
        (names.POWER, "W", figure.watts),
        (names.SENSOR_PERIOD, "s", figure.period_s),
        (names.ENERGY_UNCERTAINTY, "J", figure.uncertainty_j),
        (names.POWER_IDLE, "W", figure.idle_w),
        (names.ENERGY_ABOVE_IDLE, "J", figure.above_idle_j),
        (names.ENERGY_ABOVE_IDLE_UNCERTAINTY, "J", figure.above_idle_uncertainty_j),
    ):
        if value is not None:
            exporter.set(name, unit, _rounded(value), by)


def _rounded(value: float) -> float:
    """To 16 bits, one part in 65,000 and far below any sensor's uncertainty: the noughts that follow deflate."""
    mantissa, exponent = math.frexp(value)
    return math.ldexp(round(mantissa * 65536), exponent - 16)
