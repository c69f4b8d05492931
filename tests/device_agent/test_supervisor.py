from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgewright_agent.supervisor import tell, watchdog_period_s


@pytest.fixture(params=["path", "abstract"])
def supervisor(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@edgewright-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name.replace("@", "\0"))
        listener.settimeout(5)
        yield name, listener


def test_a_supervisor_hears_every_line_in_one_datagram(supervisor: tuple[str, socket.socket]) -> None:
    name, listener = supervisor
    assert tell("READY=1", "STATUS=serving net:1.0.0", environment={"NOTIFY_SOCKET": name})
    assert listener.recv(4096) == b"READY=1\nSTATUS=serving net:1.0.0"


@pytest.mark.parametrize("address", ["", "relative", "/nowhere/at/all"])
def test_without_a_supervisor_nothing_is_sent_and_nothing_fails(address: str) -> None:
    assert not tell("READY=1", environment={"NOTIFY_SOCKET": address})


@pytest.mark.parametrize(
    ("environment", "period_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
)
def test_the_period_is_half_of_what_the_supervisor_waits(
    environment: dict[str, str], period_s: float | None
) -> None:
    assert watchdog_period_s(environment=environment) == period_s
