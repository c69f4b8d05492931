"""The packets of MQTT 5 that a receiver sends and reads, as bytes. Pure; the socket is in `mqtt_receiver.py`.

OASIS standard "MQTT Version 5.0", 2019, QoS 0 and 1; each function names its section. What is no MQTT raises
`ConnectionResetError`, as there is no way to find the next packet behind it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

MAX_PACKET = 8 << 20
"""Bytes of a message that the broker may send us."""
CONNACK, PUBLISH, SUBACK, DISCONNECT = 2, 3, 9, 14
PING, GOODBYE = b"\xc0\x00", b"\xe0\x00"
BYTES_OF = {0x24: 1, 0x25: 1, 0x28: 1, 0x29: 1, 0x2A: 1, 0x13: 2, 0x21: 2, 0x22: 2, 0x11: 4, 0x27: 4}
"""Properties of fixed size (section 2.2.2.2); all others in a CONNACK are one or two strings."""
SERVER_KEEP_ALIVE, USER_PROPERTY = 0x13, 0x26


class Message(NamedTuple):
    """What somebody published; `number` is 0 where nothing is to be acknowledged."""

    topic: str
    payload: bytes
    number: int


def hello(
    client_id: str, session_s: int, keep_alive_s: int, username: str | None, password: str | None
) -> bytes:
    """CONNECT (section 3.1): go on with the session there is; no message larger than `MAX_PACKET`."""
    flags = (0x80 if username is not None else 0) | (0x40 if password is not None else 0)
    properties = struct.pack(">BIBI", 0x11, session_s, 0x27, MAX_PACKET)
    body = text("MQTT") + struct.pack(">BBH", 5, flags, keep_alive_s) + length(len(properties)) + properties
    for word in (client_id, username, password):
        body += text(word) if word is not None else b""
    return b"\x10" + length(len(body)) + body


def acknowledgement(number: int) -> bytes:
    """PUBACK (section 3.4)."""
    return struct.pack(">BBH", 0x40, 2, number)


def packet(data: bytes, at: int) -> tuple[int, int] | None:
    """Where the body of the packet at `at` begins and ends; None while it is not all there (section 2.1)."""
    if len(data) - at < 2:
        return None
    size = data[at + 1]
    start = at + 2
    if size & 0x80:
        shift, size = 0, 0
        for start in range(at + 1, min(at + 5, len(data))):
            size |= (data[start] & 0x7F) << shift
            shift += 7
            if not data[start] & 0x80:
                start += 1
                break
        else:
            if len(data) - at >= 5:
                raise ConnectionResetError("the broker sends what is no MQTT")
            return None
    if size > MAX_PACKET:
        raise ConnectionResetError("the broker sends what is no MQTT, or too large")
    return (start, start + size) if start + size <= len(data) else None


def read_message(data: bytes, head: int, start: int, end: int) -> Message:
    """A PUBLISH (section 3.3)."""
    try:
        at = start + 2 + (data[start] << 8 | data[start + 1])
        topic = data[start + 2 : at].decode("utf-8", "replace")
        number = 0
        if head & 0x06:
            number = data[at] << 8 | data[at + 1]
            at += 2
        size, at = varint(data, at)
    except IndexError:
        raise ConnectionResetError("the broker sends what is no MQTT") from None
    if at + size > end:
        raise ConnectionResetError("the broker sends what is no MQTT")
    return Message(topic, data[at + size : end], number)


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A variable byte integer and where it ends (section 1.5.5)."""
    value = data[at]
    if value < 0x80:
        return value, at + 1
    value, shift = 0, 0
    for place in range(at, at + 4):
        value |= (data[place] & 0x7F) << shift
        shift += 7
        if data[place] < 0x80:
            return value, place + 1
    raise ConnectionResetError("the broker sends what is no MQTT")


def server_keep_alive(body: bytes) -> int | None:
    """What a CONNACK says that we have to keep to, in seconds (section 3.2.2.3.14)."""
    size, at = varint(body, 2)
    end = at + size
    while at < end:
        kind = body[at]
        if kind == SERVER_KEEP_ALIVE:
            return body[at + 1] << 8 | body[at + 2]
        at += 1
        if kind in BYTES_OF:
            at += BYTES_OF[kind]
            continue
        for _ in range(2 if kind == USER_PROPERTY else 1):
            at += 2 + (body[at] << 8 | body[at + 1])
    return None


def subscribe(filters: Sequence[str]) -> bytes:
    """SUBSCRIBE at QoS 1 (section 3.8)."""
    body = b"\x00\x01\x00" + b"".join(text(wanted) + b"\x01" for wanted in filters)
    return b"\x82" + length(len(body)) + body


def text(word: str) -> bytes:
    data = word.encode()
    return struct.pack(">H", len(data)) + data


def length(size: int) -> bytes:
    """A variable byte integer (section 1.5.5)."""
    written = bytearray()
    while True:
        size, digit = size >> 7, size & 0x7F
        written.append(digit | (0x80 if size else 0))
        if not size:
            return bytes(written)
