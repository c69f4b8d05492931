"""`Vitals`: memory, processor time and disk of the agent and its device, read from Linux once a period.

A figure that cannot be read is absent, never zero. Source: proc(5), `/proc/self/statm` and `/proc/meminfo`.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from edgewright.telemetry import names
from edgewright_agent.exporter import Exporter


class Vitals:
    """`folder` is where the agent keeps its state, whose disk must not fill up."""

    def __init__(self, folder: Path, *, root: Path = Path("/")) -> None:
        self._folder, self._proc = folder, root / "proc"
        self._cpu_s = time.process_time()

    def record(self, exporter: Exporter) -> None:
        """Read them all into the next payload; some 40 µs of processor time."""
        last_s, self._cpu_s = self._cpu_s, time.process_time()
        exporter.add(names.PROCESS_CPU, "s", self._cpu_s - last_s)
        with contextlib.suppress(OSError, ValueError, IndexError):
            pages = int((self._proc / "self/statm").read_text().split()[1])
            exporter.set(names.PROCESS_MEMORY, "By", pages * os.sysconf("SC_PAGE_SIZE"))
        with contextlib.suppress(OSError, ValueError, IndexError):
            available = (self._proc / "meminfo").read_text().partition("MemAvailable:")[2]
            exporter.set(names.MEMORY_AVAILABLE, "By", int(available.split()[0]) * 1024)
        with contextlib.suppress(OSError, ZeroDivisionError):
            disk = os.statvfs(self._folder)
            exporter.set(names.FILESYSTEM_UTILIZATION, "1", 1.0 - disk.f_bavail / disk.f_blocks)
