"""A real registry and two real brokers for the fleet's tests."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import free_port
from edgewright.artifact.layout import MANIFEST_TYPE, Layout
from edgewright.artifact.release import FORMAT, PROFILE, publish
from edgewright.mqtt import BrokerSettings
from edgewright_fleet.broker import embedded_broker


@pytest.fixture(scope="module")
def embedded() -> Iterator[BrokerSettings]:
    with embedded_broker(free_port()) as settings:
        yield settings


@contextlib.contextmanager
def running_mosquitto(folder: Path, more: str = "") -> Iterator[BrokerSettings]:
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        pytest.skip("mosquitto is not installed")
    port = free_port()
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n{more}")
    process = subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
                break
            time.sleep(0.05)
        yield BrokerSettings(host="127.0.0.1", port=port)
    finally:
        process.terminate()
        process.wait(5)


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerSettings]:
    with running_mosquitto(tmp_path_factory.mktemp("mosquitto")) as settings:
        yield settings


@pytest.fixture
def fresh_mosquitto(tmp_path: Path) -> Iterator[BrokerSettings]:
    """One that retains nothing of another test."""
    with running_mosquitto(tmp_path) as settings:
        yield settings


@pytest.fixture(params=["mosquitto", "embedded"])
def broker(request: pytest.FixtureRequest) -> BrokerSettings:
    settings = request.getfixturevalue(request.param)
    assert isinstance(settings, BrokerSettings)
    return settings


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """Releases net:1.0.0 and net:1.1.0 for one profile; a rollout reads names and digests alone."""
    layout = Layout.create(tmp_path / "registry")
    for version in ("1.0.0", "1.1.0"):
        artifact = layout.put(f"net {version}".encode(), MANIFEST_TYPE, {PROFILE: "gateway", FORMAT: "onnx"})
        publish(layout, "net", version, [artifact])
    return tmp_path / "registry"
