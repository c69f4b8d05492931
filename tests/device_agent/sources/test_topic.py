"""A real broker."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edgewright.mqtt import BrokerSettings
from edgewright.runtime.model import Model
from edgewright_agent.sources.source import Sample, SampleError, SourceMissingError, SourceSilentError
from edgewright_agent.sources.topic import WAITING, TopicSource


def source_of(port: int, **how: Any) -> TopicSource:
    settings = {"payload": "raw", "max_bytes": 100, "silent_s": 60.0, **how}
    return TopicSource(BrokerSettings(port=port), "plant/line-3/source", "line-3/camera", **settings)


@pytest.fixture
def sender(broker: Any) -> Iterator[paho.Client]:
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    yield client
    client.disconnect()
    client.loop_stop()


def send(sender: paho.Client, *payloads: bytes) -> None:
    for payload in payloads:
        sender.publish("line-3/camera", payload, qos=1).wait_for_publish(5)


def connected(source: TopicSource, sender: paho.Client) -> None:
    """Send until something arrives: a subscription takes a moment."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        send(sender, b"ping")
        if source.next(0.2) is not None:
            while source.next(0.1) is not None:
                pass
            return
    raise AssertionError


def test_messages_come_as_inputs_in_their_order(broker: Any, sender: paho.Client, plain_model: Model) -> None:
    source = source_of(broker.port)
    connected(source, sender)
    before = time.time()
    send(sender, b"abcd", b"efgh")
    rows = []
    for _ in range(2):
        sample = source.next(5)
        assert isinstance(sample, Sample)
        assert before - 1 <= sample.captured_s <= time.time()
        rows.append(sample.prepare(plain_model)["x"].tobytes())
    assert rows == [b"abcd", b"efgh"]
    assert source.next(0.05) is None
    source.close()


def test_a_message_that_cannot_be_read_is_an_error_of_its_own(
    broker: Any, sender: paho.Client, plain_model: Model
) -> None:
    source = source_of(broker.port)
    connected(source, sender)
    send(sender, b"toolong", b"good")
    sample = source.next(5)
    assert sample is not None
    with pytest.raises(SampleError, match="holds 7 bytes; the artifact's input is 4"):
        sample.prepare(plain_model)
    sample = source.next(5)
    assert sample is not None
    assert sample.prepare(plain_model)["x"].tobytes() == b"good"
    source.close()


def test_a_message_over_the_limit_is_reported_and_one_far_over_it_is_not_even_sent(
    broker: Any, sender: paho.Client
) -> None:
    source = source_of(broker.port)
    connected(source, sender)
    send(sender, bytes(101))
    with pytest.raises(SampleError, match="a message of 101 bytes is larger than max_bytes"):
        source.next(5)
    send(sender, bytes(1 << 20), b"good")
    sample = source.next(5)
    assert sample is not None
    assert sample.prepare.args[0] == b"good"  # type: ignore[attr-defined]
    source.close()


def test_a_burst_keeps_the_newest(broker: Any, sender: paho.Client) -> None:
    source = source_of(broker.port)
    connected(source, sender)
    send(sender, *(b"%04d" % i for i in range(3 * WAITING)))
    newest = b"%04d" % (3 * WAITING - 1)
    end = time.monotonic() + 20
    waiting = source._inbox._samples
    while not waiting or waiting[-1].prepare.args[0] != newest:  # type: ignore[attr-defined]
        assert time.monotonic() < end
        time.sleep(0.01)
    taken = []
    while (sample := source.next(0.2)) is not None:
        taken.append(sample.prepare.args[0])  # type: ignore[attr-defined]
    assert taken == [b"%04d" % i for i in range(2 * WAITING, 3 * WAITING)]
    source.close()


def test_a_silent_topic_is_reported_once_a_while(broker: Any) -> None:
    source = source_of(broker.port, silent_s=0.3)
    with pytest.raises(SourceSilentError, match=r"line-3/camera: has said nothing for 0\.3 s"):
        while True:
            source.next(0.1)
    assert source.next(0.05) is None
    source.close()


def test_a_broker_that_goes_is_reported_and_found_again(broker: Any, sender: paho.Client) -> None:
    source = source_of(broker.port)
    connected(source, sender)
    broker.stop()
    with pytest.raises(SourceMissingError, match=r"the broker of the source (is gone|cannot be reached)"):
        source.next(5)
    broker.start()
    sender.reconnect()
    end = time.monotonic() + 20
    while time.monotonic() < end:
        send(sender, b"back")
        try:
            if source.next(0.5) is not None:
                break
        except SourceMissingError:
            continue
    else:
        raise AssertionError
    source.close()
