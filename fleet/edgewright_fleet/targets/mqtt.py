"""The MQTT twin as a target: desired states go out, reports, presence and measurements come in as events."""

from __future__ import annotations

import contextlib
import logging
import queue
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import paho.mqtt.client as paho

from edgewright.contract import from_json, to_json
from edgewright.errors import BrokerError, EdgewrightError
from edgewright.mqtt import BrokerSettings, connect, make_client
from edgewright.telemetry.window import decode_otlp
from edgewright.twin import DesiredState, DeviceStatus, ReportedState, parse_topic, topic
from edgewright_fleet.rollout.engine import DevicePresence, DeviceReported, WindowArrived

log = logging.getLogger("edgewright.fleet")
DeviceEvent = DeviceReported | DevicePresence | WindowArrived
PUBLISH_TIMEOUT_S = 10.0


class MqttTarget:
    """The devices of one fleet behind one broker. Raises `BrokerError` where it cannot be reached."""

    def __init__(self, settings: BrokerSettings, fleet: str) -> None:
        self.settings, self.fleet = settings, fleet
        self.refused = 0
        self._events: queue.SimpleQueue[DeviceEvent] = queue.SimpleQueue()
        self._latest: dict[tuple[str, type], DeviceEvent] = {}
        self._seen: dict[str, tuple[str, int]] = {}
        self._client = make_client(settings, f"edgewright-fleet-{uuid.uuid4().hex[:12]}")
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        connect(self._client, settings)

    def set_desired(self, device: str, desired: DesiredState) -> None:
        """Publish a retained desired state and wait until the broker has it. Raises `BrokerError`."""
        message = self._client.publish(
            topic(self.fleet, device, "desired"), to_json(desired), qos=1, retain=True
        )
        with contextlib.suppress(RuntimeError):  # not connected: told apart below
            message.wait_for_publish(PUBLISH_TIMEOUT_S)
        if not message.is_published():
            raise BrokerError(
                f"did not take the desired state of {device} within {PUBLISH_TIMEOUT_S:g} s",
                where=str(self.settings),
            )

    def known(self) -> list[DeviceEvent]:
        """The latest report, presence and measurement of every device seen so far."""
        return list(self._latest.values())

    def events(self, wait_s: float) -> Iterator[DeviceEvent]:
        """What arrived; waits up to `wait_s` for the first event and then gives what is there."""
        try:
            yield self._events.get(timeout=wait_s)
            while True:
                yield self._events.get_nowait()
        except queue.Empty:
            return

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(
        self, client: paho.Client, userdata: Any, flags: Any, reason: Any, properties: Any = None
    ) -> None:
        for leaf in ("reported", "status", "metrics"):
            client.subscribe(topic(self.fleet, "+", leaf), qos=1)

    def _on_message(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        if not message.payload:
            return
        try:
            _, device, leaf = parse_topic(message.topic)
            for event in _READERS[leaf](device, bytes(message.payload), message.topic):
                if not isinstance(event, WindowArrived) or self._is_new(event):
                    self._latest[device, type(event)] = event
                    self._events.put(event)
        except (EdgewrightError, KeyError) as error:
            self.refused += 1
            log.warning("%s: %s", message.topic, error)

    def _is_new(self, event: WindowArrived) -> bool:
        """QoS 1 delivers at least once: a payload that was seen before is not counted again."""
        window = event.window
        boot, sequence = self._seen.get(window.device, ("", -1))
        if boot == window.boot and window.sequence < sequence:
            return False
        # The windows of one payload share a sequence, so an equal one is new unless this very release came.
        key = f"{window.device}/{window.release}"
        if self._seen.get(key) == (window.boot, window.sequence):
            return False
        self._seen[window.device] = self._seen[key] = (window.boot, window.sequence)
        return True


def _read_reported(device: str, payload: bytes, where: str) -> list[DeviceEvent]:
    report = from_json(ReportedState, payload, where=where)
    return [DeviceReported(report)] if report.device == device else []


def _read_status(device: str, payload: bytes, where: str) -> list[DeviceEvent]:
    return [DevicePresence(device, from_json(DeviceStatus, payload, where=where).online)]


def _read_metrics(device: str, payload: bytes, where: str) -> list[DeviceEvent]:
    return [WindowArrived(window) for window in decode_otlp(payload) if window.device == device]


_READERS: dict[str, Callable[[str, bytes, str], list[DeviceEvent]]] = {
    "reported": _read_reported,
    "status": _read_status,
    "metrics": _read_metrics,
}
