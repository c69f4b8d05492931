"""RAPL: an energy counter of the processor package, in microjoules, that wraps.

Linux kernel documentation, "Power Capping Framework": `energy_uj` counts up to `max_energy_range_uj`. Only
root may read it unless the device image says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Rapl:
    """All packages of the processor together: neither disk, network nor power supply."""

    zones: tuple[Path, ...]
    name: str = "rapl package"
    _last: dict[Path, int] = field(default_factory=dict)

    @staticmethod
    def find(root: Path) -> Rapl | None:
        """The packages whose counter this user may read."""
        # Domains of a package (intel-rapl:0:1) and the platform domain (psys) would count its energy twice.
        zones = [
            zone
            for zone in sorted((root / "sys/class/powercap").glob("intel-rapl:*"))
            if (_text(zone / "name") or "").startswith("package") and _read(zone / "energy_uj") is not None
        ]
        return Rapl(tuple(zones)) if zones else None

    def energy_j(self, now_s: float) -> float | None:
        """Joules since the last reading; see `PowerSensor`."""
        del now_s  # the counter needs no clock
        microjoules: int | None = None
        for zone in self.zones:
            value = _read(zone / "energy_uj")
            if value is None:
                continue
            last, self._last[zone] = self._last.get(zone), value
            if last is None:
                continue
            if value < last:
                last -= _read(zone / "max_energy_range_uj") or last
            microjoules = (microjoules or 0) + value - last
        return None if microjoules is None else microjoules / 1e6


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


def _read(path: Path) -> int | None:
    try:
        return int(_text(path) or "")
    except ValueError:
        return None
