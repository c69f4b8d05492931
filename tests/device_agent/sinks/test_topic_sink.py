"""A real broker."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edgewright.mqtt import BrokerSettings
from edgewright_agent.sinks.sink_error import SinkError
from edgewright_agent.sinks.topic_sink import WAITING, TopicSink

ACL = Path(__file__).parents[3] / "firmware_images" / "mosquitto" / "acl"


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


def test_under_the_shipped_rules_a_device_predicts_for_itself_and_is_told_where_it_may_not(
    broker: Any,
) -> None:
    broker.stop()
    broker.extra = f"acl_file {ACL}\n"
    broker.start()
    settings = BrokerSettings(port=broker.port, username="line-3")

    def refusal(topic: str) -> str | None:
        """What comes of twenty predictions."""
        sink = TopicSink(settings, f"sink of {topic}", topic)
        try:
            for _ in range(20):
                sink.put(b"{}")
                time.sleep(0.05)
        except SinkError as error:
            return str(error)
        finally:
            sink.close()
        return None

    assert refusal("edgewright/v1/plant/line-3/predictions") is None
    other = "edgewright/v1/plant/line-4/predictions"
    assert refusal(other) == f"{other}: the broker refuses predictions (Not authorized)"
