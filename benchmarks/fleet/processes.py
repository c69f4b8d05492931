"""What another process has cost so far, from /proc, and on what host."""

from __future__ import annotations

import os
import platform
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def processor_s(pid: int) -> float:
    """Its processor time, user and system, seconds; to a hundredth."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_bytes(pid: int) -> int:
    """Its memory now."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def host() -> str:
    """The machine in words."""
    return (
        f"{platform.machine()}, {os.cpu_count()} cores shared with the broker and the devices, load average "
        f"{os.getloadavg()[1]:.0f}, Python {platform.python_version()}"
    )
