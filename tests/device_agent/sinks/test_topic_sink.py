"""A real broker."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edgewright.mqtt import BrokerSettings
from edgewright_agent.sinks.sink_error import SinkError
from edgewright_agent.sinks.topic_sink import WAITING, TopicSink


def test_a_broker_that_is_away_for_long_costs_the_newest_predictions_and_works_again(broker: Any) -> None:
    broker.stop()
    sink = TopicSink(BrokerSettings(port=broker.port), "plant/line-3/sink", "plant/predictions")
    for i in range(WAITING):
        sink.put(b"%d" % i)
    with pytest.raises(SinkError, match="takes no predictions and 1000 wait already: one more is lost"):
        sink.put(b"lost")
    heard: list[bytes] = []
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.on_connect = lambda c, *_: c.subscribe("plant/predictions", qos=1)
    client.on_message = lambda _, __, message: heard.append(bytes(message.payload))
    client.reconnect_delay_set(1, 1)
    broker.start()
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    end = time.monotonic() + 30
    while time.monotonic() < end and b"there" not in heard:
        with contextlib.suppress(SinkError):
            sink.put(b"there")
        time.sleep(0.2)
    assert b"there" in heard
    assert b"lost" not in heard
    sink.close()
    client.disconnect()
    client.loop_stop()
