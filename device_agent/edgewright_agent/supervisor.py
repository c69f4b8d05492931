"""What systemd is told: that the agent serves, that it is alive, and what it is doing.

sd_notify(3): a datagram of `NAME=value` lines to the socket that `NOTIFY_SOCKET` names. Without a supervisor, or
with another one, nothing is sent and nothing fails. A supervisor that no longer hears `WATCHDOG=1` ends and
restarts the agent (`WatchdogSec=` in the unit).
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping


def tell(*lines: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Send lines such as `READY=1`; whether a supervisor was there to hear them."""
    address = environment.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return False
    if address[0] == "@":  # the abstract namespace of unix(7)
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto("\n".join(lines).encode(), address)
        return True
    return False


def watchdog_period_s(*, environment: Mapping[str, str] = os.environ) -> float | None:
    """Seconds between two signs of life, half of what the supervisor waits; None where it does not watch us.

    sd_watchdog_enabled(3): `WATCHDOG_USEC`, for the process `WATCHDOG_PID` alone.
    """
    try:
        limit_us = int(environment["WATCHDOG_USEC"])
        watched = int(environment.get("WATCHDOG_PID", os.getpid()))
    except (KeyError, ValueError):
        return None
    return limit_us / 2e6 if watched == os.getpid() and limit_us > 0 else None
