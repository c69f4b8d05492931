"""INA3221: the power monitor of Jetson modules, millivolts and milliamperes of up to three rails.

NVIDIA Jetson Linux Developer Guide, JetPack 5 and 6: `in{1,2,3}_label`, `in{1,2,3}_input` (mV) and
`curr{1,2,3}_input` (mA) below the hwmon folder of the driver; `in4` and up are shunt voltages.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

TOTAL = "VDD_IN"
"""The rail that feeds the whole module of an Orin Nano or NX; where it is missing, the rails are added up."""


@dataclass
class Ina3221:
    """Energy by the trapezium rule between readings: read it often against how fast the load changes."""

    rails: tuple[tuple[Path, Path], ...]
    name: str
    _last: tuple[float, float] | None = None

    @staticmethod
    def find(root: Path) -> Ina3221 | None:
        """The total rail where there is one, else all rails; several chips count together."""
        rails: dict[str, tuple[Path, Path]] = {}
        for folder in sorted((root / "sys/bus/i2c/drivers/ina3221").glob("*/hwmon/hwmon*")):
            for channel in (1, 2, 3):
                volts, amperes = folder / f"in{channel}_input", folder / f"curr{channel}_input"
                try:
                    label = (folder / f"in{channel}_label").read_text().strip()
                except (OSError, UnicodeDecodeError):
                    continue
                if label and _watts(volts, amperes) is not None:
                    rails[label] = (volts, amperes)
        if TOTAL in rails:
            return Ina3221((rails[TOTAL],), f"ina3221 {TOTAL}")
        return Ina3221(tuple(rails.values()), f"ina3221 {'+'.join(rails)}") if rails else None

    def energy_j(self, now_s: float) -> float | None:
        """Joules since the last reading; see `PowerSensor`."""
        watts = 0.0
        for volts, amperes in self.rails:
            rail = _watts(volts, amperes)
            if rail is None:
                return None
            watts += rail
        last, self._last = self._last, (now_s, watts)
        return None if last is None else (now_s - last[0]) * (watts + last[1]) / 2


def _watts(volts: Path, amperes: Path) -> float | None:
    try:
        return float(volts.read_text()) * float(amperes.read_text()) / 1e6
    except (OSError, ValueError):
        return None
