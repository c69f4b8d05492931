"""Telemetry between a real agent and a real broker, each killed in the worst moment."""

from __future__ import annotations

import contextlib
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgewright.contract import from_json
from edgewright.mqtt import BrokerSettings, connect, disconnect, make_client
from edgewright.telemetry import names
from edgewright.telemetry.otlp import from_bytes, read_attributes, read_number
from edgewright.telemetry.sequences import Ranges, missing, received
from edgewright.twin import DeviceStatus
from edgewright_agent.uplink import WINDOW

TOPIC = "edgewright/v1/plant/line-3"
FIRMWARE = Path(__file__).parents[2] / "firmware_images" / "mosquitto"
pytestmark = pytest.mark.slow


def metrics_of(payload: bytes) -> dict[str, Any]:
    (resource,) = from_bytes(payload).resource_metrics
    return {m.name: m for scope in resource.scope_metrics for m in scope.metrics}


def identity(payload: bytes) -> tuple[str, int]:
    """(boot, sequence) of a payload, whether or not it holds a window."""
    (resource,) = from_bytes(payload).resource_metrics
    boot = str(read_attributes(resource.resource.attributes)[names.BOOT])
    return boot, int(read_number(metrics_of(payload)[names.REPORT_SEQUENCE].gauge.data_points[0]))


def dropped(payload: bytes) -> int:
    metric = metrics_of(payload).get(names.REPORTS_DROPPED)
    return 0 if metric is None else int(read_number(metric.gauge.data_points[0]))


class Receiver:
    """Keeps who sent which payload, in the order of arrival, and the births and deaths."""

    def __init__(self, settings: BrokerSettings) -> None:
        self.arrived: list[tuple[str, int]] = []
        self.statuses: list[DeviceStatus] = []
        self.dropped = 0
        self.payload = b""
        self._news = threading.Condition()
        self._client = make_client(settings, "fleet")
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe(f"{TOPIC}/#", qos=1)
        self._client.on_message = self._on_message
        connect(self._client, settings, session_s=600)

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        with self._news:
            if message.topic.endswith("/metrics"):
                self.payload = bytes(message.payload)
                self.arrived.append(identity(message.payload))
                self.dropped = max(self.dropped, dropped(message.payload))
            elif message.topic.endswith("/status"):
                self.statuses.append(from_json(DeviceStatus, message.payload, where="status"))
            self._news.notify_all()

    def wait(self, holds: Callable[[], bool], timeout_s: float = 30.0) -> None:
        with self._news:
            assert self._news.wait_for(holds, timeout_s), f"{self.arrived} {self.statuses}"

    def close(self) -> None:
        disconnect(self._client)


@pytest.fixture
def receiver(broker: Any) -> Iterator[Receiver]:
    broker.stop()
    # The receiver's own session has to survive the broker's death, as in firmware_images/mosquitto.
    broker.extra = "autosave_on_changes true\nautosave_interval 1\n"
    broker.start()
    one = Receiver(BrokerSettings(port=broker.port))
    yield one
    one.close()


def spooled(device: Any) -> list[tuple[str, int]]:
    found = []
    for file in sorted((device.folder / "state" / "spool").glob("[0-9]*")):
        with contextlib.suppress(FileNotFoundError):  # sent meanwhile
            found.append(identity(file.read_bytes()))
    return found


def until(holds: Callable[[], bool], timeout_s: float = 20.0) -> None:
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_nothing_is_lost_while_the_broker_is_dead_and_the_agent_is_killed(
    device: Any, broker: Any, receiver: Receiver
) -> None:
    device.settings["telemetry_period_s"] = 0.2
    device.start()
    receiver.wait(lambda: len(receiver.arrived) >= 3)
    first = receiver.arrived[0][0]
    broker.kill()
    until(lambda: len(spooled(device)) >= 6)
    device.kill()
    left = spooled(device)
    assert {boot for boot, _ in left} == {first}
    device.start()
    until(lambda: len(spooled(device)) >= len(left) + 6)
    broker.start()
    until(lambda: len(spooled(device)) <= 2)  # what is new waits for its acknowledgement, a period long
    assert device.stop() == 0
    assert spooled(device) == []
    receiver.wait(lambda: not receiver.statuses[-1].online and receiver.statuses[-1].boot != first)
    second, made = receiver.statuses[-1].boot, receiver.statuses[-1].payloads
    receiver.wait(lambda: (second, made - 1) in receiver.arrived)
    # Each once after de-duplication, none missing, and few twice: those that were under way in the cut.
    for boot, payloads in ((first, left[-1][1] + 1), (second, made)):
        ranges: Ranges = ()
        for its, sequence in receiver.arrived:
            if its == boot:
                ranges = received(ranges, sequence)
        assert missing(ranges, payloads) == ()
        assert ranges == ((0, payloads - 1),)
    assert len(receiver.arrived) - len(set(receiver.arrived)) <= 2 * WINDOW
    # What the earlier boot left is sent before what the present one made.
    assert receiver.arrived.index(left[-1]) < receiver.arrived.index((second, 0))
    assert "Traceback" not in device.log


def test_agents_killed_at_random_instants_leave_no_gap_in_any_boot(
    device: Any, broker: Any, receiver: Receiver
) -> None:
    device.settings["telemetry_period_s"] = 0.05
    chance = random.Random(7)

    def boots_heard_of() -> set[str]:
        return {boot for boot, _ in [*spooled(device), *receiver.arrived]}

    for number in range(6):
        device.start()
        until(lambda count=number: len(boots_heard_of()) > count)  # type: ignore[misc]
        time.sleep(chance.uniform(0.0, 0.7))
        if broker.process is not None and chance.random() < 0.5:
            broker.kill()
        elif broker.process is None:
            broker.start()
        time.sleep(chance.uniform(0.0, 0.7))
        device.kill()
    left = spooled(device)
    if broker.process is None:
        broker.start()
    device.settings["telemetry_period_s"] = 60.0
    device.start()
    until(lambda: spooled(device) == [], 60.0)
    receiver.wait(lambda: set(left) <= set(receiver.arrived))
    boots: dict[str, Ranges] = {}
    for boot, sequence in receiver.arrived:
        boots[boot] = received(boots.get(boot, ()), sequence)
    assert len(boots) >= 6
    for ranges in boots.values():
        assert ranges == ((0, ranges[-1][1]),)


def test_what_a_full_spool_drops_is_the_oldest_and_the_receiver_is_told_how_many(
    device: Any, broker: Any, receiver: Receiver
) -> None:
    device.settings |= {"telemetry_period_s": 0.1, "telemetry_spool_bytes": 1 << 16}
    device.start()
    receiver.wait(lambda: bool(receiver.arrived))
    broker.kill()
    until(lambda: len(spooled(device)) == 16)
    until(lambda: spooled(device)[0][1] > receiver.arrived[-1][1] + 5)
    broker.start()
    until(lambda: len(spooled(device)) <= 2)
    assert device.stop() == 0
    receiver.wait(lambda: not receiver.statuses[-1].online)
    ranges: Ranges = ()
    for _, sequence in receiver.arrived:
        ranges = received(ranges, sequence)
    gaps = missing(ranges, receiver.statuses[-1].payloads)
    assert sum(last - first + 1 for first, last in gaps) == receiver.dropped > 0


def test_birth_and_death_name_the_boot_and_count_its_payloads(device: Any, receiver: Receiver) -> None:
    device.settings |= {"telemetry_period_s": 0.2, "telemetry_encoding": "json"}
    device.start()
    receiver.wait(lambda: len(receiver.arrived) >= 3)
    birth = receiver.statuses[-1]
    assert (birth.online, birth.boot) == (True, receiver.arrived[0][0])
    assert receiver.payload.startswith(b'{"resourceMetrics":')
    device.kill()
    receiver.wait(lambda: not receiver.statuses[-1].online)
    assert receiver.statuses[-1].boot == birth.boot
    device.start()
    receiver.wait(lambda: receiver.statuses[-1].online)
    assert receiver.statuses[-1].boot != birth.boot
    assert device.stop() == 0
    receiver.wait(lambda: not receiver.statuses[-1].online)
    assert receiver.statuses[-1].payloads == 1 + max(
        sequence for boot, sequence in receiver.arrived if boot == receiver.statuses[-1].boot
    )


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and NAME.pem with NAME.key for a broker, the fleet and two devices."""
    folder = tmp_path_factory.mktemp("certificates")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl(
        folder, "req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca", "-days", "9"
    )
    (folder / "san").write_text("subjectAltName=IP:127.0.0.1")
    for name in ("broker", "fleet", "line-3", "line-4"):
        openssl(folder, "req", *curve, "-keyout", f"{name}.key", "-out", "request", "-subj", f"/CN={name}")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "san", "-days", "9")
        openssl(folder, "x509", "-req", "-in", "request", "-out", f"{name}.pem", *signed)
    return folder


@pytest.fixture
def guarded(broker: Any, certificates: Path, tmp_path: Path) -> Any:
    """The broker with the configuration that firmware_images ships, but for its paths and its port."""
    broker.stop()
    text = (FIRMWARE / "edgewright.conf").read_text()
    text = text.replace("listener 8883", f"listener {broker.port} 127.0.0.1")
    text = text.replace("/etc/mosquitto/certs", str(certificates)).replace(
        "/etc/mosquitto/acl", str(FIRMWARE / "acl")
    )
    config = tmp_path / "guarded.conf"
    config.write_text(text.replace("/var/lib/mosquitto/", f"{tmp_path}/") + "user root\n")
    broker.start(config)
    return broker


def credentials(certificates: Path, name: str) -> dict[str, str]:
    return {
        "ca_file": str(certificates / "ca.pem"),
        "certificate_file": str(certificates / f"{name}.pem"),
        "key_file": str(certificates / f"{name}.key"),
    }


def test_a_device_speaks_under_its_own_certificate_and_for_itself_alone(
    device: Any, guarded: Any, certificates: Path
) -> None:
    settings = BrokerSettings.model_validate({"port": guarded.port, **credentials(certificates, "fleet")})
    receiver = Receiver(settings)
    try:
        device.settings["telemetry_period_s"] = 0.2
        device.credentials = credentials(certificates, "line-4")
        device.start()
        until(lambda: "the broker refuses telemetry (Not authorized)" in device.log)
        until(lambda: len(spooled(device)) >= 3)  # kept for when it is allowed
        assert receiver.arrived == []
        assert receiver.statuses == []
        assert device.log.count("refuses telemetry") == 1
        device.stop()
        stranger = spooled(device)
        device.credentials = credentials(certificates, "line-3")
        device.start()
        receiver.wait(lambda: set(stranger) <= set(receiver.arrived))
        receiver.wait(lambda: bool(receiver.statuses) and receiver.statuses[-1].online)
    finally:
        receiver.close()
