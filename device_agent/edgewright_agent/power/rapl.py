"""RAPL: an energy counter of the processor package, in microjoules, that wraps.

Linux kernel documentation, "Power Capping Framework": `energy_uj` counts up to `max_energy_range_uj`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Rapl:
    """All packages of the processor together."""

    zones: tuple[Path, ...]
    name: str = "rapl package"
    _last: dict[Path, int] = field(default_factory=dict)

    @staticmethod
    def find(root: Path) -> Rapl | None:
        """The packages whose counter this user may read."""
        # intel-rapl:0:1 is a part of intel-rapl:0 and would be counted twice.
        packages = sorted((root / "sys/class/powercap").glob("intel-rapl:[0-9]*"))
        zones = [z for z in packages if z.name.count(":") == 1 and _read(z / "energy_uj") is not None]
        return Rapl(tuple(zones)) if zones else None

    def energy_j(self, now_s: float) -> float:
        """Joules since the last call."""
        del now_s  # the counter needs no clock
        total = 0
        for zone in self.zones:
            value = _read(zone / "energy_uj")
            if value is None:
                continue
            last = self._last.get(zone, value)
            if value < last:
                last -= _read(zone / "max_energy_range_uj") or last
            total += value - last
            self._last[zone] = value
        return total / 1e6


def _read(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
