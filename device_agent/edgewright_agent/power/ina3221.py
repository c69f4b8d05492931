"""INA3221: the power monitor of Jetson modules, up to three rails a chip, one chip or two.

NVIDIA Jetson Linux Developer Guide. JetPack 5 and 6: `in{1,2,3}_label`, `in{1,2,3}_input` (mV) and
`curr{1,2,3}_input` (mA) below the hwmon folder of the driver; `in4` and up are shunt voltages. JetPack 4: the
driver is called ina3221x and is an iio device, with `rail_name_N` and `in_power{N}_input` (mW).

Uncertainty: Texas Instruments SBOS576, electrical characteristics at 25 °C, the greatest values: gain 0.25 %
for each of current and voltage, offset 80 µV at the shunt and 16 mV at the bus. The shunt's own tolerance is
not in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from edgewright_agent.power.sensor import SampledPower, read_int, read_text

TOTALS = ("VDD_IN", "POM_5V_IN")
"""The rails that feed the whole module of an Orin Nano, an Orin or Xavier NX, or a Nano. An AGX has none:
there the rails are added up, of which one may feed another, so that the sum is at most too high."""
UNCONNECTED = "NC"
GAIN = 0.0025
SHUNT_OFFSET_UV = 80.0
BUS_OFFSET_V = 0.016


@dataclass(frozen=True)
class _Rail:
    read_w: Callable[[], float | None]
    uncertainty_w: Callable[[], float | None]


def find(root: Path) -> SampledPower | None:
    """The total rail where there is one, else all rails; several chips count together."""
    rails = {**_iio_rails(root), **_hwmon_rails(root)}
    for total in TOTALS:
        if total in rails:
            rails = {total: rails[total]}
    if not rails:
        return None
    chosen = tuple(rails.values())
    return SampledPower(
        f"ina3221 {'+'.join(rails)}",
        lambda: _sum(rail.read_w() for rail in chosen),
        lambda: _sum(rail.uncertainty_w() for rail in chosen),
    )


def _hwmon_rails(root: Path) -> dict[str, _Rail]:
    rails = {}
    for folder in sorted((root / "sys/bus/i2c/drivers/ina3221").glob("*/hwmon/hwmon*")):
        for channel in (1, 2, 3):
            label = read_text(folder / f"in{channel}_label")
            rail = _hwmon_rail(folder, channel)
            if label and label != UNCONNECTED and rail.read_w() is not None:
                rails[label] = rail
    return rails


def _hwmon_rail(folder: Path, channel: int) -> _Rail:
    volts, amperes = folder / f"in{channel}_input", folder / f"curr{channel}_input"
    microohms = read_int(folder / f"shunt{channel}_resistor")
    last: tuple[float, float] | None = None

    def read_w() -> float | None:
        nonlocal last
        millivolts, milliamperes = read_int(volts), read_int(amperes)
        if millivolts is None or milliamperes is None:
            last = None
            return None
        last = millivolts / 1e3, abs(milliamperes) / 1e3
        return millivolts * milliamperes / 1e6

    def uncertainty_w() -> float | None:
        if last is None or not microohms:
            return None
        v, a = last
        return v * (GAIN * a + SHUNT_OFFSET_UV / microohms) + a * (GAIN * v + BUS_OFFSET_V)

    return _Rail(read_w, uncertainty_w)


def _iio_rails(root: Path) -> dict[str, _Rail]:
    rails = {}
    for folder in sorted((root / "sys/bus/i2c/drivers/ina3221x").glob("*/iio:device*")):
        for channel in (0, 1, 2):
            label = read_text(folder / f"rail_name_{channel}")
            rail = _iio_rail(folder / f"in_power{channel}_input")
            if label and label != UNCONNECTED and rail.read_w() is not None:
                rails[label] = rail
    return rails


def _iio_rail(power: Path) -> _Rail:
    def read_w() -> float | None:
        milliwatts = read_int(power)
        return None if milliwatts is None else milliwatts / 1e3

    return _Rail(read_w, lambda: None)  # the shunt, on which the offset depends, is not shown there


def _sum(values: Iterable[float | None]) -> float | None:
    """The sum, None where any part is: a rail that cannot be read makes the figure absent, not smaller."""
    total = 0.0
    for value in values:
        if value is None:
            return None
        total += value
    return total
