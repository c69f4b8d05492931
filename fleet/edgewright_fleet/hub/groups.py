"""`Group`: what the devices of one profile on one release measured, merged, lately and since the hub started.

A fleet has a few groups and many devices, so every figure of the fleet is computed from groups. Windows are
added to the present minute alone; a minute that is over goes into the total, and the last few are kept for
what is shown as recent. By the hub's clock when a window arrived: a device's own may be wrong.

Counts are added up as whole numbers of many lanes, 64 bits for each bucket: one addition for a window, in place of
one for each of its buckets.
"""

from __future__ import annotations

import struct
from collections import deque
from dataclasses import dataclass, field

from edgewright.telemetry.histogram import ExponentialHistogram
from edgewright.telemetry.reading import Reading

RECENT_MINUTES = 5
"""What "recent" means: five reports of a device that reports each minute."""
LANES = 64
"""Buckets after which another number begins, so that a device with odd buckets makes none that is huge."""


@dataclass(slots=True)
class Tally:
    """Sums over windows. Durations in seconds, energy in joules."""

    windows: int = 0
    lanes: dict[tuple[int, int], int] = field(default_factory=dict)
    """Counts by scale and the first of `LANES` buckets, over which a number may reach out."""
    events: int = 0
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
        scale, zeros, offset, counts, total, events = window.latency
        lane = offset % LANES
        key = scale, offset - lane
        number = int.from_bytes(struct.pack(f"<{len(counts)}Q", *counts), "little") << 64 * lane
        self.lanes[key] = self.lanes.get(key, 0) + number
        self.events += events
        self.zeros += zeros
        self.duration_s += total
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
        self.events += other.events
        self.zeros += other.zeros
        self.duration_s += other.duration_s
        for key, number in other.lanes.items():
            self.lanes[key] = self.lanes.get(key, 0) + number
        self.errors += other.errors
        self.throttled += other.throttled
        self.throttled_s += other.throttled_s
        self.energy_j += other.energy_j
        self.estimated_energy_j += other.estimated_energy_j
        self.above_idle_j += other.above_idle_j
        self.above_idle_inferences += other.above_idle_inferences

    def latency(self) -> ExponentialHistogram:
        """Durations of inferences that succeeded unthrottled, as if one device had counted them all."""
        scale = min((scale for (scale, _), number in self.lanes.items() if number), default=20)
        buckets: dict[int, int] = {}
        for (finer, first), number in self.lanes.items():
            lanes = -(-number.bit_length() // 64)
            counts = struct.unpack(f"<{lanes}Q", number.to_bytes(8 * lanes, "little"))
            for place, count in enumerate(counts, first):
                if count:
                    place >>= finer - scale
                    buckets[place] = buckets.get(place, 0) + count
        return ExponentialHistogram.model_construct(
            scale=scale, zero_count=self.zeros, buckets=buckets, total=self.duration_s
        )

    @property
    def inferences(self) -> int:
        """How many succeeded."""
        return self.events + self.throttled

    def energy_per_inference_j(self) -> float | None:
        """Measured joules above idle; None where no device can measure them."""
        return self.above_idle_j / self.above_idle_inferences if self.above_idle_inferences else None


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
