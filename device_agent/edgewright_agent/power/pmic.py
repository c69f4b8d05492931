"""The power-management chip of a Raspberry Pi 5, through `vcgencmd pmic_read_adc`.

It prints a line for each current and each voltage of a rail; the power is the sum over the rails that have
both. It covers what the chip feeds: neither its own conversion loss nor 5 V peripherals (`EXT5V` and `BATT`
are voltages alone). Boards before the Pi 5 have no current sensing and answer `error=1`: there is no sensor.

Uncertainty: no data sheet is public. The currents of published readings are whole multiples of 0.976 mA, of
2.93 mA for VDD_CORE: half a step of each rail is the least that it can be.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgewright_agent.power.sensor import SampledPower
from edgewright_agent.vcgencmd import ask

PERIOD_S = 10.0
"""A process a reading, some milliseconds of a core: a reading a second would cost more than all else at
rest."""
STEP_A = 0.976e-3
CORE_STEP_A = 2.93e-3
_LINE = re.compile(r"\s*(\S+)_([AV])\s+(?:current|volt)\(\d+\)=(\d+(?:\.\d+)?)([AV])\s*")


@dataclass(frozen=True)
class PmicReading:
    """What the chip said: volts and amperes by rail, for the rails that have both."""

    rails: dict[str, tuple[float, float]]

    @property
    def watts(self) -> float:
        """The power of all rails."""
        return sum(volts * amperes for volts, amperes in self.rails.values())

    @property
    def uncertainty_w(self) -> float:
        """Half a step of the current of each rail."""
        steps = {"VDD_CORE": CORE_STEP_A}
        return sum(volts * steps.get(rail, STEP_A) / 2 for rail, (volts, _) in self.rails.items())


def parse(text: str) -> PmicReading | None:
    """Read the answer; None where it names no rail with both a current and a voltage."""
    found: dict[str, dict[str, float]] = {"A": {}, "V": {}}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is not None and match[2] == match[4]:
            found[match[2]][match[1]] = float(match[3])
    rails = {rail: (volts, found["A"][rail]) for rail, volts in found["V"].items() if rail in found["A"]}
    return PmicReading(rails) if rails else None


def find(root: Path) -> SampledPower | None:
    """The chip, where the board has one that answers."""
    last: PmicReading | None = None

    def read_w() -> float | None:
        nonlocal last
        answer = ask(root, "pmic_read_adc")
        last = None if answer is None else parse(answer)
        return None if last is None else last.watts

    if read_w() is None:
        return None
    return SampledPower(
        "pmic rails", read_w, lambda: None if last is None else last.uncertainty_w, period_s=PERIOD_S
    )
