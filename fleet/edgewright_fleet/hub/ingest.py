"""`Ingest`: from the broker into the view and the store, acknowledged once it is kept.

`…/metrics` comes by a shared subscription, so that hubs of one fleet share the work; `…/reported` and
`…/status` go to every hub, as each shows the whole fleet. At the embedded broker a hub is alone, and shares
nothing: that broker would not outlive a hub which shares. The client id is the store's own: a hub that starts
again on its store goes on with the session that the broker kept, and nothing that arrived meanwhile is lost.

Messages are kept in batches, and the broker is told (PUBACK) after the commit, so that a hub that is killed
gets again what it had not kept, and the store sees what it gets twice.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as paho

from edgewright.errors import BrokerError, EdgewrightError, StorageError
from edgewright.mqtt import CONNECT_TIMEOUT_S, BrokerSettings, connect, make_client
from edgewright.twin import ROOT, topic
from edgewright_fleet.broker import is_embedded
from edgewright_fleet.hub.store import HubStore
from edgewright_fleet.hub.view import Change, FleetView
from edgewright_fleet.targets.batch_client import BatchClient

log = logging.getLogger("edgewright.hub")
PAUSE_S = 0.5
"""Seconds in which messages gather: to wake up and to commit cost more than a message."""
SESSION_S = 300
"""How long the broker keeps messages for a hub that is away: a restart or an upgrade. Until then its share of the
telemetry waits for it, also where other hubs are there."""
WORST_LOGGED = 20
"""Refused messages that are logged in a minute; all are counted."""


class Ingest:
    """Receives for one view and one store, on a thread of its own. Raises `BrokerError` at first."""

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
        self.failure: StorageError | None = None
        """Why nothing is kept any more: the broker has what came since."""
        self._view, self._store, self._lock, self._forward, self._clock = view, store, lock, forward, clock
        self._logged: tuple[int, int] = (0, 0)
        self._prefix = f"{ROOT}/{view.fleet}/"
        self._batch: list[tuple[str, bytes]] = []
        self._answered = threading.Event()
        self._client = make_client(settings, f"edgewright-hub-{store.id}", kind=BatchClient)
        self._client.take = lambda where, payload: self._batch.append((where, payload))
        self._client.keep = self._keep
        self._client.pause_s = PAUSE_S
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = lambda *_: self._answered.set()
        connect(self._client, settings, session_s=SESSION_S)
        if not self._answered.wait(CONNECT_TIMEOUT_S):
            self._client.loop_stop()
            raise BrokerError("the MQTT broker does not answer a subscription", where=str(settings))

    def close(self) -> None:
        """Leave, and let the broker keep our session: what is not acknowledged comes to the next start."""
        self._client.disconnect()
        self._client.loop_stop()

    def _keep(self) -> bool:
        batch, self._batch = self._batch, []
        if self.failure is not None or not batch:
            return self.failure is None
        now_s = self._clock()
        changes: list[Change] = []
        with self._lock:
            for where, payload in batch:
                changes += self._changes(where, payload, now_s)
        try:
            self._store.keep(changes)
        except StorageError as error:
            self.failure = error
        return self.failure is None

    def _changes(self, where: str, payload: bytes, now_s: float) -> list[Change]:
        device, _, leaf = where.removeprefix(self._prefix).partition("/")
        counted = self._view.counted
        try:
            changes = self._view.take(device, leaf, payload, now_s)
        except EdgewrightError as error:
            self._refuse(where, error, now_s)
            return []
        if self._forward is not None and self._view.counted != counted:
            self._forward(payload)
        return changes

    def _refuse(self, where: str, error: EdgewrightError, now_s: float) -> None:
        self._view.refused += 1
        minute, lines = self._logged
        self._logged = (int(now_s // 60), lines + 1 if minute == int(now_s // 60) else 1)
        if self._logged[1] <= WORST_LOGGED:
            log.warning("%s: %s", ascii(where), " ".join(str(error).split()))

    def _on_connect(
        self, client: paho.Client, userdata: Any, flags: Any, reason: Any, properties: Any = None
    ) -> None:
        if reason.is_failure:
            return
        self.connected = True
        self._batch.clear()  # the broker sends again what has no answer
        if (
            flags.session_present
        ):  # to subscribe anew would make the embedded broker forget what it kept for us
            self._answered.set()
            return
        fleet = self._view.fleet
        share = "" if is_embedded(properties) else "$share/hub/"
        wanted = [f"{share}{topic(fleet, '+', 'metrics')}"]
        wanted += [topic(fleet, "+", "reported"), topic(fleet, "+", "status")]
        client.subscribe([(pattern, 1) for pattern in wanted])

    def _on_disconnect(self, *_: Any) -> None:
        self.connected = False
