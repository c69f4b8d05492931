"""Where the API listens, who may connect, and what becomes of the socket."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from edgewright_agent.config import ServingConfig
from edgewright_agent.exporter import Exporter
from edgewright_agent.serving import listeners
from edgewright_agent.serving.listeners import listening

EXPORTER = Exporter(fleet="plant", device="line-3", profile="x86-64-gateway", boot="b")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "POLL_S", 0.02)
    monkeypatch.setattr(listeners, "RETRY_S", 0.05)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def alive(address: Path | tuple[str, int]) -> bool:
    kind = socket.AF_UNIX if isinstance(address, Path) else socket.AF_INET
    with contextlib.suppress(OSError), socket.socket(kind) as connection:
        connection.settimeout(5)
        connection.connect(str(address) if isinstance(address, Path) else address)
        connection.sendall(b"GET /v2/health/live HTTP/1.1\r\n\r\n")
        return b"200 OK" in connection.recv(1000)
    return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_socket_is_for_the_agents_user_and_group_and_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "api"
    before = os.umask(0)
    try:
        with listening(ServingConfig(socket=path), lambda: None, EXPORTER):
            until(lambda: alive(path))
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
    finally:
        os.umask(before)
    assert not path.exists()


def test_a_port_is_open_on_loopback_alone(tmp_path: Path) -> None:
    port = free_port()
    with listening(ServingConfig(port=port), lambda: None, EXPORTER):
        until(lambda: alive(("127.0.0.1", port)))
        listening_at = [
            line.split()[1]
            for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
            if line.split()[3] == "0A"
        ]
        assert [address for address in listening_at if address.endswith(f":{port:04X}")] == [
            f"0100007F:{port:04X}"
        ]
    assert not alive(("127.0.0.1", port))


def test_an_address_open_to_the_network_is_taken_when_told_and_warned_of(caplog: Any) -> None:
    port = free_port()
    with listening(ServingConfig(port=port, address="0.0.0.0"), lambda: None, EXPORTER):
        until(lambda: alive(("127.0.0.1", port)))
    assert "the inference API is open to the network at 0.0.0.0: it knows no passwords" in caplog.text


def test_a_socket_that_a_killed_agent_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "api"
    bind = f"s = socket.socket(socket.AF_UNIX); s.bind({str(path)!r}); s.listen()"
    script = f"import socket, time; {bind}; time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        until(path.exists)
        process.send_signal(signal.SIGKILL)
    assert path.is_socket()
    with listening(ServingConfig(socket=path), lambda: None, EXPORTER):
        until(lambda: alive(path))


def test_an_address_that_another_holds_is_left_to_it_and_taken_when_it_is_free(
    tmp_path: Path, caplog: Any
) -> None:
    caplog.set_level(logging.INFO)
    path, port = tmp_path / "api", free_port()
    both = ServingConfig(socket=path, port=port)
    with contextlib.ExitStack() as stack:
        with listening(both, lambda: None, EXPORTER):
            until(lambda: alive(path) and alive(("127.0.0.1", port)))
            stack.enter_context(listening(both, lambda: None, EXPORTER))
            until(lambda: caplog.text.count("in use); trying again") == 2)
            assert alive(path) and alive(("127.0.0.1", port))
        until(lambda: alive(path) and alive(("127.0.0.1", port)))
    assert caplog.text.count("trying again") == 2  # said once, not at each attempt


def test_a_file_that_is_no_socket_is_never_removed(tmp_path: Path, caplog: Any) -> None:
    path = tmp_path / "api"
    path.write_text("precious")
    with listening(ServingConfig(socket=path), lambda: None, EXPORTER):
        until(lambda: "trying again" in caplog.text)
    assert path.read_text() == "precious"


def test_a_folder_that_comes_later_is_waited_for(tmp_path: Path, caplog: Any) -> None:
    path = tmp_path / "run" / "api"
    with listening(ServingConfig(socket=path), lambda: None, EXPORTER):
        until(lambda: "No such file or directory); trying again" in caplog.text)
        path.parent.mkdir()
        until(lambda: alive(path))


def test_a_stop_lets_requests_in_flight_finish(served_of: Any, api_of: Any, tmp_path: Path) -> None:
    served = served_of()
    with ThreadPoolExecutor() as pool:
        with contextlib.ExitStack() as stack:
            stack.enter_context(served.turn)
            api = api_of(served)
            flight = pool.submit(api.infer, [1, 2, 3, 4])
            until(lambda: api.room_taken() == 1)
            stop = pool.submit(api.stop)
            until(lambda: not (tmp_path / "api").exists())
            assert not stop.done()
        assert flight.result(10)[0] == 200
        stop.result(10)
