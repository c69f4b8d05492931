"""`Uplink`: telemetry from the spool to the broker, a few records at a time, each until it is acknowledged.

A record leaves the spool after the broker's PUBACK (QoS 1) and not before. The oldest go first, so that what an
earlier boot left precedes the present one's. A receiver that sees one twice knows it by boot and sequence.
"""

from __future__ import annotations

import logging
import queue
import threading
import time

import paho.mqtt.client as paho
from paho.mqtt.reasoncodes import ReasonCode

from edgewright_agent.spool import Spool

log = logging.getLogger("edgewright.agent")
WINDOW = 4
"""Records under way at once, and so a second, as `pump` is called once in one. 4: a day's records follow in six
minutes, and 5,000 devices that come back at once send 20,000 messages a second between them, not all they have."""
REFUSED_PAUSE_S = 60.0
"""Until the next attempt after a broker refused a record (no permission, over quota)."""


class Uplink:
    """One topic of one client, whose `on_publish` it takes over. Any thread may call it."""

    def __init__(self, client: paho.Client, topic: str, spool: Spool) -> None:
        self._client, self._topic, self._spool = client, topic, spool
        self._lock = threading.Lock()
        self._under_way: dict[int, int] = {}
        self._answers: queue.SimpleQueue[tuple[int, ReasonCode]] = queue.SimpleQueue()
        self._not_before_s = 0.0
        self._refused = False
        # paho holds a lock of its own here that `publish` takes too: only note the answer, act on it in `pump`.
        client.on_publish = lambda _client, _data, mid, reason, _properties: self._answers.put((mid, reason))

    def send(self, payload: bytes) -> None:
        """Keep a payload, and send it when its turn comes."""
        with self._lock:
            self._spool.append(payload)
        self.pump()

    def pump(self) -> None:
        """Take the broker's answers and send what the window allows. Call it about once a second."""
        with self._lock:
            self._take_answers()
            if not self._client.is_connected() or time.monotonic() < self._not_before_s:
                return
            while len(self._under_way) < WINDOW:
                record = self._spool.take()
                if record is None:
                    return
                order, payload = record
                message = self._client.publish(self._topic, payload, qos=1)
                # A connection lost meanwhile is no matter: paho sends what is under way after the next one.
                self._under_way[message.mid] = order

    def finish(self, timeout_s: float) -> None:
        """Send on while the broker answers, until all is sent or the time is over; the rest stays on disk."""
        end = time.monotonic() + timeout_s
        while len(self._spool) and self._client.is_connected() and time.monotonic() < end:
            self.pump()
            time.sleep(0.01)

    def _take_answers(self) -> None:
        while not self._answers.empty():
            mid, reason = self._answers.get()
            order = self._under_way.pop(mid, None)
            if order is None:  # another message of this client
                continue
            if reason.is_failure:
                if not self._refused:  # said once, not every minute for as long as it lasts
                    log.warning("the broker refuses telemetry (%s); it waits on disk", reason)
                self._refused = True
                self._not_before_s = time.monotonic() + REFUSED_PAUSE_S
                self._spool.put_back(order)
            else:
                self._refused = False
                self._spool.acknowledge(order)
