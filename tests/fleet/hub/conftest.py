"""A running hub: the real command in its own process, on a real broker, and devices that write real payloads."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from conftest import free_port, running_mosquitto
from edgewright.contract import to_json
from edgewright.mqtt import BrokerSettings, connect, disconnect, make_client
from edgewright.telemetry import names
from edgewright.twin import DeviceStatus, Phase, ReleaseReference, ReportedState, RunningRelease, topic
from edgewright_agent.exporter import Exporter, model_attributes


def release(version: str = "1.0.0") -> ReleaseReference:
    return ReleaseReference(name="net", version=version, digest="sha256:" + version[0] * 64)


class Payloads:
    """Writes what an agent would: its own exporter, one of each device."""

    def __init__(self, fleet: str, device: str, *, profile: str = "raspberry-pi-5", boot: str = "b1") -> None:
        self.exporter = Exporter(fleet=fleet, device=device, profile=profile, boot=boot)

    def window(
        self,
        latencies_s: list[float],
        *,
        version: str = "1.0.0",
        errors: int = 0,
        energy_j: float | None = None,
        celsius: float | None = None,
    ) -> bytes:
        model = model_attributes(release(version))
        for latency_s in latencies_s:
            self.exporter.record(model, latency_s, queue_s=1e-4)
        for _ in range(errors):
            self.exporter.record_error(model, ValueError())
        if energy_j is not None:
            self.exporter.record_energy(energy_j * 3, "ina3221 VDD_IN")
            self.exporter.set(names.ENERGY_ABOVE_IDLE, "J", energy_j)
        if celsius is not None:
            self.exporter.set(names.TEMPERATURE, "Cel", celsius, {names.SENSOR: "cpu"})
        return self.exporter.collect()


def reported(
    device: str,
    *,
    version: str | None = "1.0.0",
    phase: Phase = "committed",
    reason: str | None = None,
    profile: str = "raspberry-pi-5",
    sequence: int = 1,
) -> bytes:
    running = version and RunningRelease(
        release=release(version), artifact="sha256:" + "0" * 64, runtime="simulated 1"
    )
    return to_json(
        ReportedState(
            device=device,
            profile=profile,
            boot="b1",
            sequence=sequence,
            phase=phase,
            running=running or None,
            reason=reason,
        )
    )


@dataclass
class Crowd:
    """Many devices behind one connection."""

    settings: BrokerSettings
    fleet: str
    payloads: dict[str, Payloads] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.client = make_client(self.settings, f"crowd-{uuid.uuid4().hex[:8]}")
        self.client.max_inflight_messages_set(1000)
        connect(self.client, self.settings)

    def close(self) -> None:
        disconnect(self.client)

    def send(self, device: str, leaf: str, payload: bytes) -> None:
        retain = leaf != "metrics"
        self.client.publish(topic(self.fleet, device, leaf), payload, qos=1, retain=retain).wait_for_publish(
            10
        )

    def join(self, device: str, *, version: str = "1.0.0", profile: str = "raspberry-pi-5") -> None:
        self.payloads[device] = Payloads(self.fleet, device, profile=profile)
        self.send(device, "status", to_json(DeviceStatus(online=True, boot="b1")))
        self.send(device, "reported", reported(device, version=version, profile=profile))

    def measure(
        self, device: str, latency_s: float = 0.02, *, version: str = "1.0.0", errors: int = 0
    ) -> bytes:
        rng = random.Random(device)
        window = self.payloads[device].window(
            [latency_s * rng.lognormvariate(0, 0.1) for _ in range(100)],
            version=version,
            errors=errors,
            energy_j=3.0,
            celsius=50 + rng.random() * 10,
        )
        self.send(device, "metrics", window)
        return window


@dataclass
class RunningHub:
    """A hub's process and its address."""

    process: subprocess.Popen[str]
    url: str
    fleet: str
    store: Path

    def get(self, path: str, **headers: str) -> str:
        request = urllib.request.Request(self.url + path, headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            text: str = answer.read().decode()
            return text

    def until(self, path: str, holds: Callable[[str], object], wait_s: float = 20.0) -> str:
        end, text = time.monotonic() + wait_s, ""
        while time.monotonic() < end:
            with contextlib.suppress(urllib.error.URLError):
                text = self.get(path)
                if holds(text):
                    return text
            time.sleep(0.1)
        raise AssertionError(f"never came true on {path}: {text[:3000]}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


@contextlib.contextmanager
def running_hub(
    settings: BrokerSettings, fleet: str, folder: Path, *options: str, port: int | None = None
) -> Iterator[RunningHub]:
    port = port or free_port()
    store = folder / "hub.sqlite"
    command = [
        *(sys.executable, "-m", "edgewright_cli.main", "fleet", "hub", "--fleet", fleet),
        *("--broker", str(settings), "--listen", f"127.0.0.1:{port}", "--store", str(store), *options),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    try:
        assert process.stderr is not None
        first = process.stderr.readline()
        assert first.startswith("hub of"), first + process.stderr.read()
        yield RunningHub(process, f"http://127.0.0.1:{port}", fleet, store)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(15)


@contextlib.contextmanager
def own_broker(folder: Path, port: int) -> Iterator[tuple[BrokerSettings, Callable[[], None]]]:
    """A mosquitto that a test may stop before its end."""
    with contextlib.ExitStack() as stack:
        settings = stack.enter_context(running_mosquitto(folder, port=port))
        yield settings, stack.close


@pytest.fixture
def fleet() -> str:
    return f"f-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def crowd(mosquitto: BrokerSettings, fleet: str) -> Iterator[Crowd]:
    with contextlib.closing(Crowd(mosquitto, fleet)) as crowd:
        yield crowd
