"""Any other monitor that the kernel shows as hwmon: an energy counter, a power, or a voltage with its
current.

Linux kernel documentation, "Naming and data format standards for sysfs files": `energy*_input` in µJ,
`power*_average` and `power*_input` in µW, `in*_input` in mV, `curr*_input` in mA. One channel of one chip is
read and named, as the channels of a chip may contain each other: the input power ("pin") of a PMBus supply,
else the first.

Uncertainty: of a voltage and a current, one unit of what the files hold (1 mV and 1 mA), which is the least
that it can be; of the others nobody says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from edgewright_agent.power.sensor import EnergyCounter, SampledPower, read_int, read_text

INPUT_LABELS = ("pin", "vin")
"""What PMBus drivers call the channel that feeds the others."""


def find(root: Path) -> EnergyCounter | SampledPower | None:
    """The first chip with an energy counter, else with a power, else with a voltage and a current."""
    chips = [chip for chip in sorted((root / "sys/class/hwmon").glob("hwmon*")) if not _is_battery(chip)]
    for reader in (_energy, _power, _pair):
        for chip in chips:
            sensor = reader(chip)
            if sensor is not None:
                return sensor
    return None


def _is_battery(chip: Path) -> bool:
    # Its current may flow either way; `battery` knows which.
    return (chip / "device/capacity").exists()


def _energy(chip: Path) -> EnergyCounter | None:
    for counter in _channels(chip, "energy", "_input"):
        if read_int(counter) is not None:
            return EnergyCounter(_name(chip, counter), ((counter, None),))
    return None


def _power(chip: Path) -> SampledPower | None:
    # An average misses less between two readings.
    for kind in ("_average", "_input"):
        for power in _channels(chip, "power", kind):
            if read_int(power) is not None:
                return SampledPower(_name(chip, power), _watts(power))
    return None


def _pair(chip: Path) -> SampledPower | None:
    for volts in _channels(chip, "in", "_input"):
        amperes = chip / volts.name.replace("in", "curr", 1)
        if read_int(volts) is not None and read_int(amperes) is not None:
            return SampledPower(_name(chip, volts), *_product(volts, amperes))
    return None


def _channels(chip: Path, quantity: str, kind: str) -> Iterator[Path]:
    """The files of a quantity, the input's channel first, then by number."""
    found = [
        path for path in chip.glob(f"{quantity}*{kind}") if re.fullmatch(rf"{quantity}\d+{kind}", path.name)
    ]

    def order(path: Path) -> tuple[bool, int]:
        label = read_text(chip / f"{path.name.removesuffix(kind)}_label") or ""
        return not label.startswith(INPUT_LABELS), int(path.name.removeprefix(quantity).removesuffix(kind))

    yield from sorted(found, key=order)


def _name(chip: Path, file: Path) -> str:
    channel = file.name.partition("_")[0]
    return f"hwmon {read_text(chip / 'name') or chip.name} {read_text(chip / f'{channel}_label') or channel}"


def _watts(power: Path) -> Callable[[], float | None]:
    def read_w() -> float | None:
        microwatts = read_int(power)
        return None if microwatts is None else microwatts / 1e6

    return read_w


def _product(volts: Path, amperes: Path) -> tuple[Callable[[], float | None], Callable[[], float | None]]:
    off_w: float | None = None

    def read_w() -> float | None:
        nonlocal off_w
        millivolts, milliamperes = read_int(volts), read_int(amperes)
        if millivolts is None or milliamperes is None:
            off_w = None
            return None
        off_w = (millivolts + abs(milliamperes)) / 1e6
        return millivolts * milliamperes / 1e6

    return read_w, lambda: off_w
