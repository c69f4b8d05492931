"""Packets cut from a stream, however it arrives and whatever it holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edgewright.mqtt_packets import (
    PUBLISH,
    Message,
    length,
    packet,
    read_message,
    server_keep_alive,
    text,
    varint,
)

messages = st.builds(
    Message,
    topic=st.text(min_size=1, max_size=40),
    payload=st.binary(max_size=300),
    number=st.integers(0, 65535),
)


def publish(message: Message, *, expiry_s: int | None) -> bytes:
    """A PUBLISH; its properties as paho packs them."""
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    if expiry_s is not None:
        properties.MessageExpiryInterval = expiry_s
        properties.UserProperty = ("key", "value" * 40)
    packed: bytes = properties.pack()  # type: ignore[no-untyped-call]
    number = message.number.to_bytes(2, "big") if message.number else b""
    body = text(message.topic) + number + packed + message.payload
    return bytes([0x32 if message.number else 0x30]) + length(len(body)) + body


@given(
    st.lists(st.tuples(messages, st.none() | st.integers(0, 9)), max_size=6),
    st.lists(st.integers(1, 60), min_size=1),
)
def test_messages_are_the_same_however_the_stream_is_cut(
    sent: list[tuple[Message, int | None]], cuts: list[int]
) -> None:
    stream = b"".join(publish(message, expiry_s=expiry_s) for message, expiry_s in sent)
    found, rest, turn = [], b"", 0
    while stream:
        cut = cuts[turn % len(cuts)]
        rest, stream, turn = rest + stream[:cut], stream[cut:], turn + 1
        at = 0
        while (place := packet(rest, at)) is not None:
            assert rest[at] >> 4 == PUBLISH
            found.append(read_message(rest, rest[at], *place))
            at = place[1]
        rest = rest[at:]
    assert found == [message for message, _ in sent]
    assert rest == b""


@given(st.binary(max_size=60))
def test_rubbish_is_waited_for_or_refused(data: bytes) -> None:
    try:
        place = packet(data, 0)
        if place is not None:
            assert 2 <= place[0] <= place[1] <= len(data)
            message = read_message(data, data[0], *place)
            assert len(message.payload) <= len(data)
    except ConnectionResetError:
        pass


@given(st.integers(0, 268_435_455))
def test_a_length_is_read_as_it_was_written(value: int) -> None:
    written = length(value)
    assert varint(written, 0) == (value, len(written))


def test_a_length_that_does_not_end_is_refused() -> None:
    with pytest.raises(ConnectionResetError):
        packet(b"\x30\xff\xff\xff\xff\x01" + b"x" * 20, 0)
    with pytest.raises(ConnectionResetError):
        packet(b"\x30\xff\xff\xff\x7f", 0)


def test_the_keep_alive_of_the_broker_is_found_among_other_properties() -> None:
    properties = Properties(PacketTypes.CONNACK)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = 5
    properties.AssignedClientIdentifier = "someone"
    properties.UserProperty = [("a", "b"), ("c", "d")]
    properties.MaximumQoS = 1
    properties.TopicAliasMaximum = 10
    assert server_keep_alive(b"\x00\x00" + properties.pack()) is None  # type: ignore[no-untyped-call]
    properties.ServerKeepAlive = 77
    assert server_keep_alive(b"\x00\x00" + properties.pack()) == 77  # type: ignore[no-untyped-call]
