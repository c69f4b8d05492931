"""`Ingest`: from the broker into the view and the store, acknowledged once it is kept.

`…/metrics` comes by a shared subscription, so that hubs of one fleet share the work; `…/reported` and
`…/status` go to every hub, as each shows the whole fleet. The client id is the store's own: a hub that starts
again on its store goes on with the session that the broker kept, and nothing that arrived meanwhile is lost.

Messages are kept in batches, and the broker is told (PUBACK) after the commit, so that a hub that is killed
gets again what it had not kept, and the store sees what it gets twice.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from edgewright.errors import EdgewrightError
from edgewright.mqtt import BrokerSettings
from edgewright.mqtt_receiver import Message, Receiver
from edgewright.twin import ROOT, topic
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
        self._view, self._store, self._lock, self._forward, self._clock = view, store, lock, forward, clock
        self._logged: tuple[int, int] = (0, 0)
        self._prefix = f"{ROOT}/{view.fleet}/"
        filters = [f"$share/hub/{topic(view.fleet, '+', 'metrics')}"]
        filters += [topic(view.fleet, "+", leaf) for leaf in ("reported", "status")]
        self._receiver = Receiver(settings, f"edgewright-hub-{store.id}", filters, session_s=SESSION_S)

    @property
    def connected(self) -> bool:
        """Whether the broker is there."""
        return self._receiver.connected

    def take(self, wait_s: float) -> int:
        """Keep the next batch, waiting up to `wait_s` for its first message; gives how many messages it had.

        Raises `StorageError` where it cannot be kept: the broker then still has it.
        """
        batch = self._receiver.receive(wait_s, linger_s=LINGER_S, most=BATCH)
        if not batch:
            return 0
        now_s = self._clock()
        changes: list[Change] = []
        with self._lock:
            for message in batch:
                changes += self._changes(message, now_s)
        self._store.keep(changes)
        self._receiver.acknowledge()
        return len(batch)

    def close(self) -> None:
        """Leave, and let the broker keep our session: what is not acknowledged comes to the next start."""
        self._receiver.close()

    def _changes(self, message: Message, now_s: float) -> list[Change]:
        try:
            device, _, leaf = message.topic.removeprefix(self._prefix).partition("/")
            new = self._view.counted
            changes = self._view.take(device, leaf, message.payload, now_s)
        except EdgewrightError as error:
            self._refuse(message, error, now_s)
            return []
        if self._forward is not None and self._view.counted != new:
            self._forward(message.payload)
        return changes

    def _refuse(self, message: Message, error: EdgewrightError, now_s: float) -> None:
        self._view.refused += 1
        minute, lines = self._logged
        self._logged = (int(now_s // 60), lines + 1 if minute == int(now_s // 60) else 1)
        if self._logged[1] <= WORST_LOGGED:
            log.warning("%s: %s", ascii(message.topic), " ".join(str(error).split()))
