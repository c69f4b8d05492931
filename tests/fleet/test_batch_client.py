"""Reading many messages at once gives the very messages, however the network cuts the stream."""

from __future__ import annotations

import itertools
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import paho.mqtt.client as paho
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion

from edgewright_fleet.targets.batch_client import BatchClient


@contextmanager
def connected() -> Iterator[tuple[BatchClient, socket.socket, list[tuple[str, bytes]]]]:
    """A client whose broker is the other end of a pair of sockets."""
    client = BatchClient(CallbackAPIVersion.VERSION2, client_id="c", protocol=paho.MQTTv5)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.settimeout(5)
        client._sock = ours
        taken: list[tuple[str, bytes]] = []
        client.take = lambda where, payload: taken.append((where, payload))
        yield client, theirs, taken
        client._sock = None


def length(n: int) -> bytes:
    coded = bytearray()
    while True:
        n, low = divmod(n, 128)
        coded.append(low | (0x80 if n else 0))
        if not n:
            return bytes(coded)


def publish(where: str, payload: bytes, qos: int, number: int, properties: bytes = b"") -> bytes:
    body = struct.pack(">H", len(where.encode())) + where.encode()
    body += (struct.pack(">H", number) if qos else b"") + length(len(properties)) + properties + payload
    return bytes((0x30 | qos << 1,)) + length(len(body)) + body


messages = st.lists(
    st.tuples(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="+#\0"), min_size=1, max_size=20),
        st.binary(max_size=300),
        st.sampled_from([0, 1, 1]),
        st.sampled_from([b"", b"\x01\x01", b"\x26\x00\x01k\x00\x01v"]),
    ),
    max_size=12,
)


@settings(deadline=None)
@given(messages, st.lists(st.integers(0, 4000), max_size=8))
def test_stream_cut_anywhere_gives_each_message_once_and_acknowledges_it(
    sent: list[tuple[str, bytes, int, bytes]], cuts: list[int]
) -> None:
    stream = b"".join(publish(w, p, q, i + 1, more) for i, (w, p, q, more) in enumerate(sent))
    stream += b"\xd0\x00"  # PINGRESP, which is paho's
    places = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    with connected() as (client, broker, taken):
        for begin, end in itertools.pairwise(places):
            if begin < end:
                broker.sendall(stream[begin:end])
                assert client.loop_read() == paho.MQTT_ERR_SUCCESS
        assert taken == [(where, payload) for where, payload, _, _ in sent]
        wanted = b"".join(b"\x40\x02" + struct.pack(">H", i + 1) for i, (_, _, q, _) in enumerate(sent) if q)
        client.loop_write()
        got = b""
        while len(got) < len(wanted):
            got += broker.recv(len(wanted) - len(got))
        assert got == wanted


@pytest.mark.parametrize("said", [b"", b"\x00", b"\x10\x00"], ids=["plain", "success", "no subscriber"])
def test_message_of_ours_is_published_once_the_broker_says_so(said: bytes) -> None:
    with connected() as (client, broker, _):
        ours = [client.publish("a/b", b"x", qos=1) for _ in range(3)]
        acknowledged = [
            b"\x40" + bytes((2 + len(said),)) + struct.pack(">H", number) + said
            for number in (ours[2].mid, ours[0].mid, ours[0].mid, 999)
        ]
        broker.sendall(b"".join(acknowledged))
        assert client.loop_read() == paho.MQTT_ERR_SUCCESS
        assert [one.is_published() for one in ours] == [True, False, True]


def test_message_of_qos_two_goes_the_way_of_paho() -> None:
    with connected() as (client, broker, taken):
        broker.sendall(publish("a/b", b"x", 2, 7))
        client.loop_read()
        client.loop_write()
        assert broker.recv(4)[:1] == b"\x50"  # PUBREC
        broker.sendall(b"\x62\x02\x00\x07")  # PUBREL
        client.loop_read()
        assert taken == [("a/b", b"x")]


@given(st.binary(min_size=1, max_size=64))
@settings(deadline=None)
def test_garbage_never_raises(garbage: bytes) -> None:
    with connected() as (client, broker, _):
        broker.sendall(garbage)
        assert isinstance(client._packet_read(), paho.MQTTErrorCode)
