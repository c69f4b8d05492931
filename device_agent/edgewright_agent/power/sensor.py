"""What a power sensor is: joules since the last reading, how sure they are, and what they cover.

There are two kinds. A `SampledPower` reads watts, and its energy is an integral over readings with their
times; an `EnergyCounter` is integrated by the hardware. Where and how a device shows them is the matter of
the other modules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

SYSFS_PERIOD_S = 0.5
"""Between readings of a file in sysfs: some 50 µs each, and short enough that the gaps between the inferences
of a device that runs one or two a second show its idle power."""
MAX_GAP_PERIODS = 10
"""Readings further apart than this many periods are not joined by a straight line: the count starts anew."""


@dataclass(frozen=True)
class Energy:
    """Joules, and the seconds in which they were used."""

    joules: float
    seconds: float


class PowerSensor(Protocol):
    """A sensor of one device. The figures are absent (None), never nought, where it cannot be read."""

    @property
    def name(self) -> str:
        """The sensor and the rails that it covers."""
        ...

    @property
    def period_s(self) -> float:
        """How often it is worth its cost to read it, seconds."""
        ...

    @property
    def sampled(self) -> bool:
        """Whether what happens between two readings goes unseen."""
        ...

    def read(self, now_s: float) -> Energy | None:
        """The energy since the last reading, `now_s` by a monotonic clock; None at the first, which starts
        the count."""
        ...

    def uncertainty_w(self) -> float | None:
        """How far the last reading may be off, in watts; None where nobody says."""
        ...


@dataclass
class SampledPower:
    """Readings of watts, joined by the trapezium rule."""

    name: str
    read_w: Callable[[], float | None]
    uncertainty: Callable[[], float | None] = lambda: None
    period_s: float = SYSFS_PERIOD_S
    sampled: bool = field(default=True, init=False)
    _last: tuple[float, float] | None = field(default=None, init=False)

    def read(self, now_s: float) -> Energy | None:
        """See `PowerSensor`."""
        watts = self.read_w()
        if watts is None:
            return None
        last, self._last = self._last, (now_s, watts)
        if last is None or now_s - last[0] > MAX_GAP_PERIODS * self.period_s:
            return None
        seconds = now_s - last[0]
        return Energy(seconds * (watts + last[1]) / 2, seconds)

    def uncertainty_w(self) -> float | None:
        """See `PowerSensor`."""
        return self.uncertainty()


@dataclass
class EnergyCounter:
    """Counters of microjoules, added up; each wraps at its `range_uj`, or is reset where there is none."""

    name: str
    counters: tuple[tuple[Path, Path | None], ...]
    """Each counter with the file that holds its range."""
    step_j: float | None = None
    """What one step of the counter is worth; None where nobody says."""
    period_s: float = SYSFS_PERIOD_S
    sampled: bool = field(default=False, init=False)
    _last: dict[Path, int] = field(default_factory=dict, init=False)
    _since_s: float | None = field(default=None, init=False)

    def read(self, now_s: float) -> Energy | None:
        """See `PowerSensor`. A reading that fails is made up for by the next."""
        microjoules: int | None = None
        for counter, range_file in self.counters:
            value = read_int(counter)
            if value is None:
                continue
            last, self._last[counter] = self._last.get(counter), value
            if last is None:
                continue
            if value < last:
                wraps_at = None if range_file is None else read_int(range_file)
                last = last - wraps_at if wraps_at else value
            microjoules = (microjoules or 0) + value - last
        if microjoules is None and self._since_s is not None:
            return None
        since, self._since_s = self._since_s, now_s
        return None if since is None or microjoules is None else Energy(microjoules / 1e6, now_s - since)

    def uncertainty_w(self) -> float | None:
        """A step for each counter, over one period."""
        return None if self.step_j is None else len(self.counters) * self.step_j / self.period_s


def read_text(path: Path) -> str | None:
    """What a file holds, stripped; None where it cannot be read."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


def read_int(path: Path) -> int | None:
    """The integer that a file holds; None where it cannot be read or holds something else."""
    try:
        return int(read_text(path) or "")
    except ValueError:
        return None
