"""The embedded broker is a real MQTT 5 broker, on the loopback interface alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import free_port
from edgewright.errors import BrokerError
from edgewright.mqtt import BrokerSettings, connect, make_client
from edgewright_fleet.broker import embedded_broker

LISTEN = "0A"


def bound_to(port: int) -> set[str]:
    """The addresses on which something listens at a port, as the kernel writes them."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            address, _, hexadecimal = fields[1].partition(":")
            if fields[3] == LISTEN and int(hexadecimal, 16) == port:
                found.add(address)
    return found


def test_it_listens_on_the_loopback_interface_alone(embedded: BrokerSettings) -> None:
    assert bound_to(embedded.port) == {"0100007F"}, "127.0.0.1 in the kernel's byte order, and nothing else"


def test_it_keeps_retained_messages_and_sends_the_last_will(embedded: BrokerSettings) -> None:
    device = make_client(embedded, "device", will=("w/device", b"gone"))
    connect(device, embedded)
    device.publish("t/device", b"x" * 100_000, qos=1, retain=True).wait_for_publish(5)
    seen: dict[str, int] = {}
    watcher = make_client(embedded, "watcher")
    watcher.on_connect = lambda *_: watcher.subscribe([("t/+", 1), ("w/+", 1)])
    watcher.on_message = lambda _, __, message: seen.update({message.topic: len(message.payload)})
    connect(watcher, embedded)
    device.loop_stop()
    device.socket().close()  # type: ignore[union-attr]
    end = time.monotonic() + 5
    while len(seen) < 2 and time.monotonic() < end:
        time.sleep(0.02)
    watcher.disconnect()
    watcher.loop_stop()
    assert seen == {"t/device": 100_000, "w/device": 4}


def test_taken_port_is_said_in_one_line(embedded: BrokerSettings) -> None:
    with (
        pytest.raises(BrokerError, match="the port is taken; choose another"),
        embedded_broker(embedded.port),
    ):
        pass


def test_port_is_free_again_afterwards() -> None:
    port = free_port()
    for _ in range(2):
        with embedded_broker(port):
            assert bound_to(port)
        assert not bound_to(port)


@pytest.mark.slow
def test_command_serves_until_ctrl_c_and_takes_the_broker_with_it_when_killed() -> None:
    for number, code in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        port = free_port()
        command = [sys.executable, "-m", "edgewright_cli.main", "fleet", "broker", "--port", str(port)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ)
        assert process.stderr is not None
        assert process.stderr.readline() == f"MQTT 5 broker on 127.0.0.1:{port}; Ctrl-C ends it\n"
        process.send_signal(number)
        assert process.wait(10) == code
        end = time.monotonic() + 5
        while bound_to(port) and time.monotonic() < end:
            time.sleep(0.05)
        assert not bound_to(port)
        process.stderr.close()
