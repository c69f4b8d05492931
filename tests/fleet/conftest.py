"""A real registry and two real brokers for the fleet's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import free_port, running_mosquitto
from edgewright.artifact.layout import MANIFEST_TYPE, Layout
from edgewright.artifact.release import FORMAT, PROFILE, publish
from edgewright.mqtt import BrokerSettings
from edgewright_fleet.broker import embedded_broker


@pytest.fixture(scope="module")
def embedded() -> Iterator[BrokerSettings]:
    with embedded_broker(free_port()) as settings:
        yield settings


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
