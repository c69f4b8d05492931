"""`Group`: what the devices of one profile on one release measured, merged, lately and since the hub started.

A fleet has a few groups and many devices, so every figure of the fleet is computed from groups. Windows are
added to the present minute alone; a minute that is over goes into the total, and the last few are kept for
what is shown as recent. By the hub's clock when a window arrived: a device's own may be wrong.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from edgewright.telemetry.histogram import ExponentialHistogram
from edgewright.telemetry.reading import Durations, Reading

RECENT_MINUTES = 5
"""What "recent" means: five reports of a device that reports each minute."""


@dataclass(slots=True)
class Tally:
    """Sums over windows. Durations in seconds, energy in joules."""

    windows: int = 0
    scale: int = 20
    buckets: dict[int, int] = field(default_factory=dict)
    zeros: int = 0
    duration_s: float = 0.0
    errors: int = 0
    throttled: int = 0
    throttled_s: float = 0.0
    energy_j: float = 0.0
    estimated_energy_j: float = 0.0
    above_idle_j: float = 0.0
    above_idle_inferences: int = 0

    def add(self, window: Reading) -> None:
        """One more window."""
        self.windows += 1
        self._add_durations(window.latency)
        self.errors += window.errors
        self.throttled += window.throttled
        self.throttled_s += window.throttled_s or 0.0
        self.energy_j += window.energy_j or 0.0
        self.estimated_energy_j += window.estimated_energy_j or 0.0
        if window.energy_above_idle_j is not None:
            self.above_idle_j += window.energy_above_idle_j
            self.above_idle_inferences += window.inferences

    def merge(self, other: Tally) -> None:
        """All that another one holds."""
        self.windows += other.windows
        self.zeros += other.zeros
        self.duration_s += other.duration_s
        if other.buckets:
            self._coarsen(other.scale)
            for index, count in other.buckets.items():
                place = index >> (other.scale - self.scale)
                self.buckets[place] = self.buckets.get(place, 0) + count
        self.errors += other.errors
        self.throttled += other.throttled
        self.throttled_s += other.throttled_s
        self.energy_j += other.energy_j
        self.estimated_energy_j += other.estimated_energy_j
        self.above_idle_j += other.above_idle_j
        self.above_idle_inferences += other.above_idle_inferences

    def latency(self) -> ExponentialHistogram:
        """Durations of inferences that succeeded unthrottled, as if one device had counted them all."""
        return ExponentialHistogram.model_construct(
            scale=self.scale, zero_count=self.zeros, buckets=self.buckets, total=self.duration_s
        )

    @property
    def inferences(self) -> int:
        """How many succeeded."""
        return self.zeros + sum(self.buckets.values()) + self.throttled

    def energy_per_inference_j(self) -> float | None:
        """Measured joules above idle; None where no device can measure them."""
        return self.above_idle_j / self.above_idle_inferences if self.above_idle_inferences else None

    def _add_durations(self, more: Durations) -> None:
        self.zeros += more.zero_count
        self.duration_s += more.total
        if not more.counts:
            return
        self._coarsen(more.scale)
        buckets, shift = self.buckets, more.scale - self.scale
        for place, count in enumerate(more.counts, more.offset):
            if count:
                place >>= shift
                buckets[place] = buckets.get(place, 0) + count

    def _coarsen(self, scale: int) -> None:
        if scale < self.scale:
            coarser: dict[int, int] = {}
            for index, count in self.buckets.items():
                place = index >> (self.scale - scale)
                coarser[place] = coarser.get(place, 0) + count
            self.buckets, self.scale = coarser, scale


class Group:
    """The tallies of one profile and release."""

    __slots__ = ("_minutes", "_past", "profile", "release")

    def __init__(self, profile: str, release: str) -> None:
        self.profile, self.release = profile, release
        self._past = Tally()
        self._minutes: deque[tuple[int, Tally]] = deque()

    def add(self, window: Reading, now_s: float) -> None:
        """A window that arrived at `now_s`."""
        minute = int(now_s // 60)
        if not self._minutes or self._minutes[-1][0] < minute:
            self._minutes.append((minute, Tally()))
            while self._minutes[0][0] <= minute - RECENT_MINUTES:
                self._past.merge(self._minutes.popleft()[1])
        self._minutes[-1][1].add(window)

    def since_start(self) -> Tally:
        """Everything since the hub started."""
        return _sum([self._past, *(tally for _, tally in self._minutes)])

    def recent(self, now_s: float) -> Tally:
        """The last `RECENT_MINUTES` minutes, the present one among them."""
        first = int(now_s // 60) - RECENT_MINUTES
        return _sum([tally for minute, tally in self._minutes if minute > first])


def _sum(tallies: list[Tally]) -> Tally:
    result = Tally()
    for tally in tallies:
        result.merge(tally)
    return result
