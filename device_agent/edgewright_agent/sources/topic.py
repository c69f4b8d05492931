"""Samples from an MQTT topic: one message, one sample, on a connection of its own."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edgewright.mqtt import KEEPALIVE_S, BrokerSettings, make_client
from edgewright_agent.feed_config import Payload
from edgewright_agent.sources.inbox import Inbox
from edgewright_agent.sources.preparation import from_payload
from edgewright_agent.sources.source import Sample, SampleError, SourceMissingError

WAITING = 8
"""Messages that wait for their inference; a burst of more loses its oldest."""
HEADER_BYTES = 1 << 16
"""What topic and properties add to a message, at most: packets that are larger still are not even sent to us."""


class TopicSource:
    """See `Source`."""

    def __init__(
        self,
        broker: BrokerSettings,
        client_id: str,
        topic: str,
        *,
        payload: Payload,
        max_bytes: int,
        silent_s: float,
    ) -> None:
        """Begin to connect. Raises `BrokerError` where a credential cannot be used."""
        self._topic, self._payload, self._max_bytes = topic, payload, max_bytes
        self._broker = broker
        self._inbox = Inbox(f"topic {topic}", size=WAITING, silent_s=silent_s)
        self._client = make_client(broker, client_id)
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = lambda *_: self._away("cannot be reached")
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        limit = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        limit.MaximumPacketSize = max_bytes + HEADER_BYTES
        self._client.connect_async(broker.host, broker.port, keepalive=KEEPALIVE_S, properties=limit)
        self._client.loop_start()

    def next(self, timeout_s: float) -> Sample | None:
        """The oldest message that waits. Raises `SourceError`."""
        return self._inbox.take(timeout_s)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(
        self, client: paho.Client, userdata: Any, flags: Any, reason: Any, properties: Any = None
    ) -> None:
        if reason.is_failure:
            self._away(f"refuses the connection ({reason})")
        else:
            client.subscribe(self._topic, qos=1)

    def _on_disconnect(
        self, client: paho.Client, userdata: Any, flags: Any, reason: Any, properties: Any = None
    ) -> None:
        if reason.is_failure:
            self._away("is gone")

    def _away(self, how: str) -> None:
        self._inbox.fail(SourceMissingError(f"the broker of the source {how}", where=str(self._broker)))

    def _on_message(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        if len(message.payload) > self._max_bytes:
            problem = f"a message of {len(message.payload)} bytes is larger than max_bytes"
            self._inbox.fail(SampleError(problem, where=f"topic {self._topic}"))
            return
        prepare = partial(from_payload, bytes(message.payload), self._payload)
        self._inbox.put(Sample(time.time(), prepare))
