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

    def energy_j(self, now_s: float) -> float:
        """Joules since the last call; the first call starts the count and gives 0. `now_s` is monotonic."""
        ...


def find_sensor(root: Path = Path("/")) -> PowerSensor | None:
    """The device's sensor, None where it has none that can be read: the figure is then absent, never zero."""
    for sensor in (Ina3221.find(root), Rapl.find(root)):
        if sensor is not None:
            return sensor
    return None
