"""Reading what the device draws: one module a sensor, each over a root path, so that recorded trees work."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from edgewright_agent.power.ina3221 import Ina3221
from edgewright_agent.power.rapl import Rapl


class PowerSensor(Protocol):
    """A sensor that adds up energy; `name` says what it measures."""

    @property
    def name(self) -> str: ...

    def energy_j(self, now_s: float) -> float | None:
        """Joules since the last reading, `now_s` by a monotonic clock.

        None at the first reading, which starts the count, and where the sensor cannot be read: a figure
        that is not known is absent, never zero.
        """
        ...


def find_sensor(root: Path = Path("/")) -> PowerSensor | None:
    """The device's sensor, None where it has none that can be read."""
    return Ina3221.find(root) or Rapl.find(root)
