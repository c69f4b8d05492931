"""The MQTT twin as a target: desired states go out, reports, presence and measurements come in as events.

What cannot be read is counted and logged in one line: a broken device must not end a rollout.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import paho.mqtt.client as paho

from edgewright.contract import from_json, to_json
from edgewright.errors import BrokerError, DataError
from edgewright.mqtt import CONNECT_TIMEOUT_S, BrokerSettings, connect, disconnect, make_client
from edgewright.telemetry.reading import read_otlp
from edgewright.twin import ROOT, DesiredState, DeviceStatus, topic
from edgewright_fleet.reports import read_report
from edgewright_fleet.rollout.state import DeviceEvent, DevicePresence, DeviceReported, WindowArrived
from edgewright_fleet.targets.batch_client import BatchClient
from edgewright_fleet.targets.target import AT_ONCE

__all__ = ["DeviceEvent", "MqttTarget"]

log = logging.getLogger("edgewright.fleet")
PUBLISH_TIMEOUT_S = 10.0
INFLIGHT = 0
"""Wishes that the broker has not acknowledged yet: as many as there are. With paho's 20 a revert of 10,000 devices
waits 500 times, and with any limit paho looks through all of them for each acknowledgement."""
PAUSE_S = 0.5
"""Seconds in which messages gather; a controller looks at them as often."""
SESSION_S = 3600
"""How long the broker keeps reports and measurements for us after our connection broke."""


class MqttTarget:
    """The devices of one fleet behind one broker. Raises `BrokerError` where it cannot be reached at first.

    Later the client reconnects by itself, and what was said meanwhile is sent then.
    """

    def __init__(self, settings: BrokerSettings, fleet: str, *, one_rollout: bool = False) -> None:
        """With `one_rollout` what devices retained, 0.7 kB each, is kept until the first rollout has heard it."""
        self.settings, self.fleet, self._one_rollout = settings, fleet, one_rollout
        self.refused = 0
        self._messages: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
        self._prefix = f"{ROOT}/{fleet}/"
        self._retained: dict[str, dict[str, bytes]] = {leaf: {} for leaf in _READERS}
        self._unsent: deque[paho.MQTTMessageInfo] = deque()
        self._client = make_client(settings, f"edgewright-fleet-{uuid.uuid4().hex[:12]}", kind=BatchClient)
        self._client.max_inflight_messages_set(INFLIGHT)
        self._client.on_connect = self._on_connect
        self._client.pause_s = PAUSE_S
        self._client.take = self._on_message
        subscribed = threading.Event()
        self._client.on_subscribe = lambda *_: subscribed.set()
        connect(self._client, settings, session_s=SESSION_S)
        if not subscribed.wait(CONNECT_TIMEOUT_S):
            self._client.loop_stop()
            raise BrokerError("the MQTT broker does not answer a subscription", where=str(settings))

    def set_desired(self, device: str, desired: DesiredState | None) -> None:
        """Publish a retained desired state, or take the retained one away; sent as soon as the broker is there."""
        where, payload = topic(self.fleet, device, "desired"), _payload(desired)
        self._unsent.append(self._client.publish(where, payload, qos=1, retain=True))
        while self._unsent[0].is_published() and len(self._unsent) > 1:
            self._unsent.popleft()

    def events(self, wait_s: float) -> list[DeviceEvent]:
        """What arrived; waits up to `wait_s` for the first message and then gives up to `AT_ONCE` of them."""
        found: list[DeviceEvent] = []
        try:
            self._hear(*self._messages.get(timeout=wait_s), found)
            for _ in range(AT_ONCE):
                self._hear(*self._messages.get_nowait(), found)
        except queue.Empty:
            pass
        return found

    def known(self) -> Iterator[DeviceEvent]:
        """The latest report and presence of every device, also where `events` gave them before."""
        for leaf, payloads in self._retained.items():
            for device, payload in payloads.copy().items():
                yield _READERS[leaf](device, payload)

    def forget(self) -> None:
        """Forget it where no other rollout will follow."""
        if self._one_rollout:
            self._retained = {}

    def close(self) -> None:
        """Disconnect, once the broker has every desired state or the time is over."""
        end = time.monotonic() + PUBLISH_TIMEOUT_S
        while any(not message.is_published() for message in self._unsent):
            if time.monotonic() > end:
                log.warning("%s did not take every desired state; run the rollout again", self.settings)
                break
            time.sleep(0.02)
        disconnect(self._client)

    def _on_connect(
        self, client: paho.Client, userdata: Any, flags: Any, reason: Any, properties: Any = None
    ) -> None:
        # To subscribe anew would make the embedded broker (rumqttd 0.20) forget what it kept for us.
        if not reason.is_failure and not flags.session_present:
            client.subscribe(
                [(topic(self.fleet, "+", leaf), 1) for leaf in ("reported", "status", "metrics")]
            )

    def _on_message(self, where: str, payload: bytes) -> None:
        # Read later, one by one: read, ten thousand retained reports are 40 MB.
        self._messages.put((where, payload))

    def _hear(self, where: str, payload: bytes, found: list[DeviceEvent]) -> None:
        if not payload:  # a retained message that was cleared
            return
        device, _, leaf = where.removeprefix(self._prefix).partition("/")
        try:
            if leaf == "metrics":
                found += _read_metrics(device, payload)
            else:
                found.append(_READERS[leaf](device, payload))
                if self._retained:
                    self._retained[leaf][sys.intern(device)] = payload
        except Exception as error:  # noqa: BLE001 - nothing that a device sends may end a rollout
            self.refused += 1
            log.warning("%s: %s", where, " ".join(str(error).split()))


@lru_cache(256)
def _payload(desired: DesiredState | None) -> bytes:
    """Devices that run the same are told the same."""
    return b"" if desired is None else to_json(desired)


def _read_reported(device: str, payload: bytes) -> DeviceReported:
    report = read_report(payload)
    _must_be(device, report.device)
    return DeviceReported(report)


def _read_status(device: str, payload: bytes) -> DevicePresence:
    status = from_json(DeviceStatus, payload, where="", error=DataError)
    return DevicePresence(device, status.online, status.boot)


_READERS: dict[str, Callable[[str, bytes], DeviceReported | DevicePresence]] = {
    "reported": _read_reported,
    "status": _read_status,
}


def _read_metrics(device: str, payload: bytes) -> list[WindowArrived]:
    arrived = []
    for window in read_otlp(payload):
        _must_be(device, window.device)
        arrived.append(WindowArrived(window))
    return arrived


def _must_be(device: str, said: str) -> None:
    """A device speaks for itself alone: a broker that checks topics then checks who may say what."""
    if said != device:
        raise DataError(f"speaks for another device, '{said}'")
