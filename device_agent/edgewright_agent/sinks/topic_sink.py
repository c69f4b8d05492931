"""Predictions to an MQTT topic, on a connection of its own: telemetry does not wait behind them."""

from __future__ import annotations

import paho.mqtt.client as paho
from paho.mqtt.reasoncodes import ReasonCode

from edgewright.mqtt import KEEPALIVE_S, BrokerSettings, make_client
from edgewright_agent.sinks.sink_error import SinkError

WAITING = 1000
"""Predictions held while the broker is away or slow; some 300 kB. More are lost, the newest first, and counted."""


class TopicSink:
    """See `Sink`. QoS 1."""

    def __init__(self, broker: BrokerSettings, client_id: str, topic: str) -> None:
        """Begin to connect. Raises `BrokerError` where a credential cannot be used."""
        self._topic = topic
        self._broker = broker
        self._client = make_client(broker, client_id)
        self._refused: str | None = None
        self._client.on_publish = self._on_publish
        self._client.max_queued_messages_set(WAITING)
        self._client.connect_async(broker.host, broker.port, keepalive=KEEPALIVE_S)
        self._client.loop_start()

    def put(self, prediction: bytes) -> None:
        sent = self._client.publish(self._topic, prediction, qos=1)
        if sent.rc == paho.MQTT_ERR_QUEUE_SIZE:
            problem = f"takes no predictions and {WAITING} wait already: one more is lost"
            raise SinkError(f"the broker of the sink {problem}", where=str(self._broker))
        refused, self._refused = self._refused, None
        if refused is not None:  # of one before
            raise SinkError(f"the broker refuses predictions ({refused})", where=self._topic)

    def _on_publish(
        self, client: paho.Client, userdata: object, mid: int, reason: ReasonCode, _: object
    ) -> None:
        if reason.is_failure:
            self._refused = str(reason)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
