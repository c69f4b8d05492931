"""What another process has cost so far, from /proc, and on what host; a hub as a process of its own."""

from __future__ import annotations

import contextlib
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from edgewright.mqtt import BrokerSettings

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


@contextlib.contextmanager
def running_hub(fleet: str, broker: BrokerSettings, store: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The real `edgewright fleet hub`, once it listens and has subscribed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-m", "edgewright_cli.main", "fleet", "hub", "--fleet", fleet]
    hub = subprocess.Popen(
        [*command, "--broker", str(broker), "--listen", address, "--store", str(store)],
        stderr=subprocess.PIPE,
    )
    try:
        assert hub.stderr is not None
        hub.stderr.readline()
        yield hub
    finally:
        hub.terminate()
        hub.wait(20)
