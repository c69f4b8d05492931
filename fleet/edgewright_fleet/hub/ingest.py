"""`Ingest`: from the broker into the view and the store, acknowledged once it is kept.

`…/metrics` comes by a shared subscription, so that hubs of one fleet share the work; `…/reported` and
`…/status` go to every hub, as each shows the whole fleet. The client id is the store's own: a hub that starts
again on its store goes on with the session that the broker kept, and nothing that arrived meanwhile is lost.

Messages are kept in batches, and the broker is told (PUBACK) after the commit, so that a hub that is killed
gets again what it had not kept, and the store sees what it gets twice.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import paho.mqtt.client as paho

from edgewright.errors import BrokerError, EdgewrightError
from edgewright.mqtt import CONNECT_TIMEOUT_S, BrokerSettings, connect, make_client
from edgewright.twin import parse_topic, topic
from edgewright_fleet.hub.store import HubStore
from edgewright_fleet.hub.view import Change, FleetView

log = logging.getLogger("edgewright.hub")
BATCH = 500
"""Messages in one commit at most."""
LINGER_S = 0.05
"""How long a batch waits for more. mosquitto sends 20 messages ahead of their acknowledgement (its
`max_inflight_messages`), so that this bounds a hub behind it to 400 messages a second, and to 20 commits."""
SESSION_S = 300
"""How long the broker keeps messages for a hub that is away: a restart or an upgrade. Until then its share of the
telemetry waits for it, also where other hubs are there."""
WORST_LOGGED = 20
"""Refused messages that are logged in a minute; all are counted."""

_Message = tuple[int, paho.MQTTMessage]


class Ingest:
    """Receives for one view and one store. Raises `BrokerError` where no broker answers at first."""

    def __init__(
        self,
        settings: BrokerSettings,
        view: FleetView,
        store: HubStore,
        lock: threading.Lock,
        *,
        forward: Callable[[bytes], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.connected = False
        self._view, self._store, self._lock, self._forward, self._clock = view, store, lock, forward, clock
        self._queue: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self._connection = 0
        self._logged: tuple[int, int] = (0, 0)
        self._client = make_client(settings, f"edgewright-hub-{store.id}")
        self._client.manual_ack_set(True)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = lambda _, __, message: self._queue.put((self._connection, message))
        answered = threading.Event()
        self._client.on_subscribe = lambda *_: answered.set()
        self._answered = answered
        connect(self._client, settings, session_s=SESSION_S)
        if not answered.wait(CONNECT_TIMEOUT_S):
            self._client.loop_stop()
            raise BrokerError("the MQTT broker does not answer a subscription", where=str(settings))

    def take(self, wait_s: float) -> int:
        """Keep the next batch, waiting up to `wait_s` for its first message; gives how many messages it had.

        Raises `StorageError` where it cannot be kept: the broker then still has it.
        """
        batch = self._next_batch(wait_s)
        if not batch:
            return 0
        now_s = self._clock()
        changes: list[Change] = []
        with self._lock:
            for _, message in batch:
                changes += self._changes(message, now_s)
        self._store.keep(changes)
        for connection, message in batch:
            # After a new connection the broker sends again what has no answer, under numbers of its choice.
            if message.qos and connection == self._connection:
                self._client.ack(message.mid, message.qos)
        return len(batch)

    def close(self) -> None:
        """Leave, and let the broker keep our session: what is not acknowledged comes to the next start."""
        self._client.disconnect()
        self._client.loop_stop()

    def _next_batch(self, wait_s: float) -> Sequence[_Message]:
        batch: list[_Message] = []
        try:
            batch.append(self._queue.get(timeout=wait_s))
            end = time.monotonic() + LINGER_S
            while len(batch) < BATCH:
                batch.append(self._queue.get(timeout=max(0.0, end - time.monotonic())))
        except queue.Empty:
            pass
        return batch

    def _changes(self, message: paho.MQTTMessage, now_s: float) -> list[Change]:
        try:
            _, device, leaf = parse_topic(message.topic)
            new = self._view.counted
            changes = self._view.take(device, leaf, bytes(message.payload), now_s)
        except EdgewrightError as error:
            self._refuse(message, error, now_s)
            return []
        if self._forward is not None and self._view.counted != new:
            self._forward(bytes(message.payload))
        return changes

    def _refuse(self, message: paho.MQTTMessage, error: EdgewrightError, now_s: float) -> None:
        self._view.refused += 1
        minute, lines = self._logged
        self._logged = (int(now_s // 60), lines + 1 if minute == int(now_s // 60) else 1)
        if self._logged[1] <= WORST_LOGGED:
            log.warning("%s: %s", ascii(message.topic), " ".join(str(error).split()))

    def _on_connect(
        self, client: paho.Client, userdata: Any, flags: Any, reason: Any, properties: Any = None
    ) -> None:
        if reason.is_failure:
            return
        self._connection += 1
        self.connected = True
        if (
            flags.session_present
        ):  # to subscribe anew would make the embedded broker forget what it kept for us
            self._answered.set()
            return
        fleet = self._view.fleet
        client.subscribe(
            [
                (f"$share/hub/{topic(fleet, '+', 'metrics')}", 1),
                (topic(fleet, "+", "reported"), 1),
                (topic(fleet, "+", "status"), 1),
            ]
        )

    def _on_disconnect(self, *_: Any) -> None:
        self.connected = False
