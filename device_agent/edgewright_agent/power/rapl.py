"""RAPL: an energy counter of each processor package, in microjoules, that wraps.

Linux kernel documentation, "Power Capping Framework": `energy_uj` counts up to `max_energy_range_uj`. Only
root may read it unless the device image says otherwise. It covers the packages: neither disk, network nor
power supply.

Uncertainty: the greatest energy unit that the Intel Software Developer's Manual (vol. 3, MSR_RAPL_POWER_UNIT)
names as a default, 61 µJ. Intel states no accuracy; Khan et al. 2018, "RAPL in Action", found it to follow
the plug closely.
"""

from __future__ import annotations

from pathlib import Path

from edgewright_agent.power.sensor import EnergyCounter, read_int, read_text

STEP_J = 61e-6


def find(root: Path) -> EnergyCounter | None:
    """The packages whose counter this user may read, together."""
    # Domains of a package (intel-rapl:0:1) and the platform domain (psys) would count its energy twice.
    zones = [
        zone
        for zone in sorted((root / "sys/class/powercap").glob("intel-rapl:*"))
        if (read_text(zone / "name") or "").startswith("package") and read_int(zone / "energy_uj") is not None
    ]
    if not zones:
        return None
    counters = tuple((zone / "energy_uj", zone / "max_energy_range_uj") for zone in zones)
    return EnergyCounter("rapl package", counters, STEP_J)
