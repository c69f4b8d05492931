"""The MQTT target against two real brokers, with payloads as devices write them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.contract import from_json, to_json
from edgewright.errors import BrokerError
from edgewright.mqtt import BrokerSettings, connect, make_client
from edgewright.twin import DesiredState, DeviceStatus, ReleaseReference, ReportedState, topic
from edgewright_fleet.devices import snapshot
from edgewright_fleet.rollout.state import DeviceEvent, DevicePresence, DeviceReported, WindowArrived
from edgewright_fleet.targets.mqtt import MqttTarget
from fleet.simulated_device import otlp

RELEASE = ReleaseReference(name="net", version="1.1.0", digest="sha256:" + "1" * 64)
OLDER = ReleaseReference(name="net", version="1.0.0", digest="sha256:" + "0" * 64)
REPORT = ReportedState(device="d0", profile="gateway", boot="b", sequence=1, phase="committed")
Publish = Callable[[str, bytes], None]


@pytest.fixture
def fleet() -> str:
    return f"f-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def publish(broker: BrokerSettings) -> Iterator[Publish]:
    client = make_client(broker, uuid.uuid4().hex)
    connect(client, broker)

    def send(where: str, payload: bytes) -> None:
        retain = not where.endswith("/metrics")
        client.publish(where, payload, qos=1, retain=retain).wait_for_publish(5)

    yield send
    client.disconnect()
    client.loop_stop()


def gathered(target: MqttTarget, count: int, timeout_s: float = 5.0) -> list[DeviceEvent]:
    """At least `count` events, and whatever else comes in a moment after."""
    events: list[DeviceEvent] = []
    end = time.monotonic() + timeout_s
    while len(events) < count and time.monotonic() < end:
        events += target.events(0.1)
    return [*events, *target.events(0.2)]


def test_what_was_retained_and_what_comes_are_events(
    broker: BrokerSettings, fleet: str, publish: Publish
) -> None:
    publish(topic(fleet, "d0", "reported"), to_json(REPORT))
    publish(topic(fleet, "d0", "status"), to_json(DeviceStatus(online=True, boot="b")))
    with closing(MqttTarget(broker, fleet)) as target:
        events = gathered(target, 2)
        assert DeviceReported(REPORT) in events
        assert DevicePresence("d0", True, "b") in events
        publish(topic(fleet, "d0", "metrics"), otlp(fleet, "d0", RELEASE, [0.01] * 7, boot="b", sequence=3))
        (event,) = gathered(target, 1)
        assert isinstance(event, WindowArrived)
        assert (event.window.latency.events, event.window.release) == (7, RELEASE.digest)
        known = list(target.known())
        assert len(known) == 2
        assert DeviceReported(REPORT) in known and DevicePresence("d0", True, "b") in known


def test_other_fleets_are_not_heard(broker: BrokerSettings, fleet: str, publish: Publish) -> None:
    publish(topic(f"{fleet}x", "d0", "reported"), to_json(REPORT))
    with closing(MqttTarget(broker, fleet)) as target:
        assert gathered(target, 1, 0.3) == []


def test_what_cannot_be_read_is_counted_and_logged_in_one_line_and_nothing_stops(
    broker: BrokerSettings, fleet: str, publish: Publish, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(MqttTarget(broker, fleet)) as target:
        bad = [
            ("reported", b"{"),
            ("reported", b'{"schema": 9}'),
            ("reported", to_json(REPORT.model_copy(update={"device": "another"}))),
            ("status", b"\xff\xfe"),
            ("metrics", b"\x00 not OTLP"),
            ("metrics", otlp(fleet, "another", RELEASE, [0.01], boot="b", sequence=1)),
        ]
        for leaf, payload in bad:
            publish(topic(fleet, "d0", leaf), payload)  # type: ignore[arg-type]
        publish(topic(fleet, "d0", "reported"), to_json(REPORT))
        assert gathered(target, 1) == [DeviceReported(REPORT)]
        assert target.refused == len(bad)
        assert all("\n" not in record.getMessage() for record in caplog.records)
        assert "speaks for another device" in caplog.text


def test_desired_state_is_retained_and_can_be_withdrawn(broker: BrokerSettings, fleet: str) -> None:
    wish = DesiredState(release=RELEASE, rollout="r")

    def retained() -> list[bytes]:
        seen: list[bytes] = []
        client = make_client(broker, uuid.uuid4().hex)
        client.on_connect = lambda *_: client.subscribe(topic(fleet, "d0", "desired"), qos=1)
        client.on_message = lambda _, __, message: seen.append(message.payload)
        connect(client, broker)
        time.sleep(0.3)
        client.disconnect()
        client.loop_stop()
        return seen

    with closing(MqttTarget(broker, fleet)) as target:
        target.set_desired("d0", DesiredState(release=OLDER, rollout="r"))
        target.set_desired("d0", wish)
    (payload,) = retained()
    assert from_json(DesiredState, payload, where="") == wish
    with closing(MqttTarget(broker, fleet)) as target:
        target.set_desired("d0", None)
    assert retained() == []


def test_snapshot_shows_each_device_also_where_its_messages_were_read_before(
    broker: BrokerSettings, fleet: str, publish: Publish
) -> None:
    publish(topic(fleet, "d0", "reported"), to_json(REPORT))
    publish(topic(fleet, "d1", "status"), to_json(DeviceStatus(online=True, boot="b")))
    with closing(MqttTarget(broker, fleet)) as target:
        first = snapshot(target)
        publish(topic(fleet, "d0", "metrics"), otlp(fleet, "d0", RELEASE, [0.01] * 9, boot="b", sequence=1))
        second = snapshot(target)
    assert (first["d0"].profile, first["d0"].phase, first["d0"].online) == ("gateway", "committed", False)
    assert (first["d1"].profile, first["d1"].online) == (None, True)
    assert second["d0"].as_document()["inferences"] == 9
    assert second["d1"].as_document()["p50_s"] is None


def test_broker_that_is_not_there_is_said_in_one_line() -> None:
    with pytest.raises(BrokerError, match="edgewright fleet broker"):
        MqttTarget(BrokerSettings(port=1), "f")


@pytest.fixture(scope="module")
def deaf(embedded: BrokerSettings) -> Iterator[MqttTarget]:
    with closing(MqttTarget(embedded, "deaf")) as target:
        yield target


GOOD_OTLP = otlp("deaf", "d0", RELEASE, [0.01] * 3, boot="b", sequence=1)


@settings(deadline=None)
@given(
    st.sampled_from(["reported", "status", "metrics", "desired", "other"]),
    st.one_of(
        st.binary(),
        st.integers(0, len(GOOD_OTLP)).map(lambda cut: GOOD_OTLP[:cut]),
        st.tuples(st.integers(0, len(GOOD_OTLP) - 1), st.binary(min_size=1, max_size=3)).map(
            lambda change: GOOD_OTLP[: change[0]] + change[1] + GOOD_OTLP[change[0] + len(change[1]) :]
        ),
    ),
)
def test_no_payload_ends_the_network_thread(deaf: MqttTarget, leaf: str, payload: bytes) -> None:
    deaf._on_message(f"edgewright/v1/deaf/d0/{leaf}", payload)
    for event in deaf.events(0.0):
        if isinstance(event, WindowArrived):
            assert event.window.latency.quantile(0.99) >= 0 or not event.window.latency.events


def test_what_is_sent_while_the_connection_is_broken_arrives_after_it(
    broker: BrokerSettings, fleet: str, publish: Publish
) -> None:
    with closing(MqttTarget(broker, fleet)) as target:
        socket = target._client.socket()
        assert socket is not None
        socket.shutdown(2)
        for sequence in range(3):
            payload = otlp(fleet, "d0", RELEASE, [0.01], boot="b", sequence=sequence)
            publish(topic(fleet, "d0", "metrics"), payload)
        windows = [e.window for e in gathered(target, 3, 10.0) if isinstance(e, WindowArrived)]
        assert sorted(window.sequence for window in windows) == [0, 1, 2]
