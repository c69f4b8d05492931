"""The battery of a phone or a gateway: what it gives while it feeds the device.

Linux kernel documentation, "Linux power supply class": `current_now` in µA, `voltage_now` in µV, `power_now`
in µW. The sign of the current differs between drivers, so that its magnitude is taken, and only while
`status` says Discharging: a battery that charges or is full says nothing about what the device draws. Nobody
states an uncertainty.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from edgewright_agent.power.sensor import SampledPower, read_int, read_text

PERIOD_S = 5.0
"""Fuel gauges settle anew every second or more slowly, and reading one may wake a bus."""


def find(root: Path) -> SampledPower | None:
    """The first battery of the device itself that shows a current or a power, whatever it does now."""
    for folder in sorted((root / "sys/class/power_supply").glob("*")):
        # scope=Device is the battery of a mouse or a headset.
        own = read_text(folder / "type") == "Battery" and read_text(folder / "scope") != "Device"
        if own and _magnitude_w(folder) is not None:
            return SampledPower(f"battery {folder.name}", partial(_draw_w, folder), period_s=PERIOD_S)
    return None


def _draw_w(folder: Path) -> float | None:
    return _magnitude_w(folder) if read_text(folder / "status") == "Discharging" else None


def _magnitude_w(folder: Path) -> float | None:
    microwatts = read_int(folder / "power_now")
    if microwatts is not None:
        return abs(microwatts) / 1e6
    microamperes, microvolts = read_int(folder / "current_now"), read_int(folder / "voltage_now")
    return None if microamperes is None or microvolts is None else abs(microamperes) * microvolts / 1e12
