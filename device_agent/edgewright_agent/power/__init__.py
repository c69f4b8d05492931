"""Reading what the device draws: one module a sensor, each over a root path, so that recorded trees work.

`find_sensor` takes the first that can be read, in an order from what measures the whole device to what
measures a part of it by accident: the monitor of a Jetson's rails, the power chip of a Raspberry Pi 5, RAPL
of an x86 processor, any other monitor that the kernel shows as hwmon, and the battery, which knows the whole
device's draw, but only while it feeds it. What each covers and how sure it is stands in its module.
"""

from __future__ import annotations

from pathlib import Path

from edgewright_agent.power import battery, hwmon, ina3221, pmic, rapl
from edgewright_agent.power.sensor import PowerSensor

__all__ = ["PowerSensor", "find_sensor"]


def find_sensor(root: Path = Path("/")) -> PowerSensor | None:
    """The device's sensor, None where it has none that can be read."""
    for module in (ina3221, pmic, rapl, hwmon, battery):
        sensor: PowerSensor | None = module.find(root)
        if sensor is not None:
            return sensor
    return None
