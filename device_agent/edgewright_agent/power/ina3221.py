"""INA3221: the power monitor of Jetson modules, millivolts and milliamperes of up to three rails.

NVIDIA Jetson Linux Developer Guide: `in{1,2,3}_label`, `in{1,2,3}_input` (mV), `curr{1,2,3}_input` (mA) below the
hwmon folder of the driver. `VDD_IN` is the whole module; where it is missing the rails are added up.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass
class Ina3221:
    """Energy by the trapezium rule between calls; call it often against how fast the load changes."""

    rails: tuple[tuple[Path, Path], ...]
    name: str
    _last: tuple[float, float] | None = None

    @staticmethod
    def find(root: Path) -> Ina3221 | None:
        """The total rail where there is one, else all rails."""
        rails: dict[str, tuple[Path, Path]] = {}
        for folder in sorted((root / "sys/bus/i2c/drivers/ina3221").glob("*/hwmon/hwmon*")):
            for channel in (1, 2, 3):
                label = folder / f"in{channel}_label"
                volts, amperes = folder / f"in{channel}_input", folder / f"curr{channel}_input"
                if label.is_file() and _read(volts) is not None and _read(amperes) is not None:
                    rails[label.read_text().strip()] = (volts, amperes)
        if not rails:
            return None
        if "VDD_IN" in rails:
            return Ina3221((rails["VDD_IN"],), "ina3221 VDD_IN")
        return Ina3221(tuple(rails.values()), f"ina3221 {'+'.join(rails)}")

    def energy_j(self, now_s: float) -> float:
        """Joules since the last call."""
        readings = [(_read(volts), _read(amperes)) for volts, amperes in self.rails]
        watts = sum(v * a for v, a in readings if v is not None and a is not None) / 1e6
        last, self._last = self._last, (now_s, watts)
        return 0.0 if last is None else (now_s - last[0]) * (watts + last[1]) / 2


def _read(path: Path) -> float | None:
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return None
