"""`Receiver`: many small messages from a broker, at a fraction of what a general client costs.

A hub hears of every device each minute and publishes nothing. paho reads each message with three system calls and
more, and answers each with two, from a thread of its own: 38 µs a message, before anything was done with it. Here
one call takes what the socket has, a loop cuts it into messages, and one write acknowledges a batch: 5 µs.

MQTT 5 (OASIS standard, 2019) as far as a receiver needs it, QoS 0 and 1; the sections are named below. Not for two
threads at once. Whoever publishes uses `mqtt.py`.
"""

from __future__ import annotations

import logging
import random
import select
import socket
import struct
import time
from collections.abc import Sequence
from typing import NamedTuple

from edgewright.errors import BrokerError
from edgewright.mqtt import CONNECT_TIMEOUT_S, KEEPALIVE_S, BrokerSettings, password, tls_context

log = logging.getLogger("edgewright.mqtt")
MAX_PACKET = 8 << 20
"""Bytes of a message that the broker may send us."""
READ = 1 << 18
LONGEST_WAIT_S = 60.0
CONNACK, PUBLISH, SUBACK, DISCONNECT = 2, 3, 9, 14
_BYTES_OF = {0x24: 1, 0x25: 1, 0x28: 1, 0x29: 1, 0x2A: 1, 0x13: 2, 0x21: 2, 0x22: 2, 0x11: 4, 0x27: 4}
"""Properties of fixed size (section 2.2.2.2); all others in a CONNACK are one or two strings."""
_SERVER_KEEP_ALIVE, _USER_PROPERTY = 0x13, 0x26


class Message(NamedTuple):
    """What somebody published; `number` is 0 where nothing is to be acknowledged."""

    topic: str
    payload: bytes
    number: int


class Receiver:
    """Subscribed to `filters` at QoS 1, in a session that the broker keeps for `session_s` while we are away.

    Raises `BrokerError` where the broker is down, silent or refuses at first; later it connects again by itself.
    """

    def __init__(
        self, settings: BrokerSettings, client_id: str, filters: Sequence[str], *, session_s: int
    ) -> None:
        self.settings = settings
        self._id, self._filters, self._session_s = client_id, filters, session_s
        self._context = tls_context(settings)
        self._password = password(settings)
        self._socket: socket.socket | None = None
        self._poll = select.poll()
        self._rest = b""
        self._unacknowledged: list[int] = []
        self._failures, self._next_try_s = 0, 0.0
        self._heard_s = self._asked_s = 0.0
        self._keep_alive_s = float(KEEPALIVE_S)
        self._connect()

    @property
    def connected(self) -> bool:
        """Whether there is a broker at the other end."""
        return self._socket is not None

    def receive(self, wait_s: float, *, linger_s: float, most: int) -> list[Message]:
        """What arrived: waits up to `wait_s` for the first message, and from then `linger_s` for up to `most`."""
        found: list[Message] = []
        end_s = time.monotonic() + wait_s
        lingers = False
        while len(found) < most and (remaining_s := end_s - time.monotonic()) > 0:
            try:
                if self._socket is None and not self._connect_again(remaining_s):
                    continue
                self._keep_alive()
                if self._readable(remaining_s):
                    found += self._read()
            except OSError as error:  # ssl.SSLError, time-outs and BrokenPipeError are some
                self._lost(str(error) or type(error).__name__)
                return []  # the broker sends again what nobody acknowledged
            if found and not lingers:
                lingers, end_s = True, time.monotonic() + linger_s
        return found

    def acknowledge(self) -> None:
        """Tell the broker that everything that `receive` gave is safe (section 3.4)."""
        numbers, self._unacknowledged = self._unacknowledged, []
        try:
            self._send(b"".join(struct.pack(">BBH", 0x40, 2, number) for number in numbers))
        except OSError as error:
            self._lost(str(error))

    def close(self) -> None:
        """Leave; the broker keeps the session for its time, and sends what was not acknowledged to the next."""
        if self._socket is not None:
            try:
                self._send(b"\xe0\x00")
            except OSError:
                log.debug("%s was gone already", self.settings)
            self._socket.close()
            self._socket = None

    def _connect_again(self, wait_s: float) -> bool:
        delay_s = self._next_try_s - time.monotonic()
        if delay_s > 0:
            time.sleep(min(delay_s, wait_s))
            return False
        try:
            self._connect()
        except BrokerError as error:
            self._lost(str(error))
            return False
        return True

    def _connect(self) -> None:
        where = str(self.settings)
        try:
            plain = socket.create_connection((self.settings.host, self.settings.port), CONNECT_TIMEOUT_S)
        except OSError as error:
            raise BrokerError(
                f"the MQTT broker cannot be reached ({error.strerror or error})",
                where=where,
                remedy="start one with 'edgewright fleet broker' or name another host and port",
            ) from None
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made = plain
            if self._context is not None:
                made = self._context.wrap_socket(plain, server_hostname=self.settings.host)
            self._poll = select.poll()
            self._poll.register(made, select.POLLIN)
            self._socket, self._rest, self._unacknowledged = made, b"", []
            self._heard_s = self._asked_s = time.monotonic()
            self._send(self._hello())
            session_is_there = self._await_acceptance(self._wait_for(CONNACK))
            # To subscribe anew would make the embedded broker (rumqttd 0.20) forget what it kept for us.
            if not session_is_there:
                self._send(_subscribe(self._filters))
                self._await_grant(self._wait_for(SUBACK))
        except OSError as error:
            self._drop(plain)
            raise BrokerError(f"the MQTT broker does not answer ({error})", where=where) from None
        except BrokerError:
            self._drop(plain)
            raise
        self._failures = 0

    def _hello(self) -> bytes:
        """CONNECT (section 3.1): go on with the session there is; none of ours is larger than `MAX_PACKET`."""
        name, settings = self._id.replace("/", ":"), self.settings
        flags = (0x80 if settings.username is not None else 0) | (0x40 if self._password is not None else 0)
        properties = struct.pack(">BIBI", 0x11, self._session_s, 0x27, MAX_PACKET)
        body = (
            _text("MQTT") + struct.pack(">BBH", 5, flags, KEEPALIVE_S) + _length(len(properties)) + properties
        )
        for word in (name, settings.username, self._password):
            body += _text(word) if word is not None else b""
        return b"\x10" + _length(len(body)) + body

    def _await_acceptance(self, body: bytes) -> bool:
        session_is_there, reason = bool(body[0] & 1), body[1]
        if reason >= 0x80:
            raise BrokerError(
                f"the MQTT broker refuses the connection (reason 0x{reason:02x})",
                where=str(self.settings),
                remedy="check its log",
            )
        self._keep_alive_s = float(_server_keep_alive(body) or KEEPALIVE_S)
        return session_is_there

    def _await_grant(self, body: bytes) -> None:
        size, at = _varint(body, 2)
        for wanted, reason in zip(self._filters, body[at + size :], strict=False):
            if reason >= 0x80:
                raise BrokerError(
                    f"the MQTT broker refuses a subscription to {wanted} (reason 0x{reason:02x})",
                    where=str(self.settings),
                )

    def _wait_for(self, kind: int) -> bytes:
        """The body of the one packet that has to come now; messages that come before it stay where they are."""
        end_s = time.monotonic() + CONNECT_TIMEOUT_S
        while (remaining_s := end_s - time.monotonic()) > 0:
            at = 0
            while (packet := _packet(self._rest, at)) is not None:
                start, end = packet
                if self._rest[at] >> 4 == kind:
                    body = self._rest[start:end]
                    self._rest = self._rest[:at] + self._rest[end:]
                    return body
                at = end
            if self._readable(remaining_s):
                self._fill()
        raise BrokerError(f"the MQTT broker is silent for {CONNECT_TIMEOUT_S:g} s", where=str(self.settings))

    def _read(self) -> list[Message]:
        """The messages that came, whole ones; what is left of the last waits for its rest."""
        self._fill()
        data, at, found = self._rest, 0, []
        while (packet := _packet(data, at)) is not None:
            start, end = packet
            kind = data[at] >> 4
            if kind == PUBLISH:
                message = _message(data, data[at], start, end)
                if message.number:
                    self._unacknowledged.append(message.number)
                found.append(message)
            elif kind == DISCONNECT:
                reason = data[start] if end > start else 0
                raise ConnectionResetError(f"the broker ends the connection, reason 0x{reason:02x}")
            at = end
        self._rest = data[at:]
        return found

    def _fill(self) -> None:
        assert self._socket is not None
        data = self._socket.recv(READ)
        if not data:
            raise ConnectionResetError("the broker closed the connection")
        self._heard_s = time.monotonic()
        self._rest += data

    def _readable(self, wait_s: float) -> bool:
        # What TLS has deciphered already makes no descriptor readable.
        pending = getattr(self._socket, "pending", None)
        if pending is not None and pending():
            return True
        return bool(self._poll.poll(min(wait_s, 1.0) * 1e3))

    def _keep_alive(self) -> None:
        """Ask for a sign of life in time, and give up a broker that gives none (section 3.1.2.10)."""
        now_s = time.monotonic()
        if now_s - max(self._heard_s, self._asked_s) > self._keep_alive_s / 2:
            self._asked_s = now_s
            self._send(b"\xc0\x00")
        if now_s - self._heard_s > 1.5 * self._keep_alive_s:
            raise TimeoutError("the broker is silent")

    def _send(self, data: bytes) -> None:
        if self._socket is not None and data:
            self._socket.sendall(data)

    def _lost(self, why: str) -> None:
        """Wait before the next try, longer each time and by chance, or a fleet of hubs would come at once."""
        if self._socket is not None:
            log.warning("%s: %s; connecting again", self.settings, why)
            self._drop(self._socket)
        self._failures += 1
        delay_s = min(LONGEST_WAIT_S, 2.0 ** min(self._failures - 1, 10)) * (0.5 + random.random() / 2)  # noqa: S311
        self._next_try_s = time.monotonic() + delay_s

    def _drop(self, connection: socket.socket) -> None:
        connection.close()
        self._socket, self._rest, self._unacknowledged = None, b"", []


def _packet(data: bytes, at: int) -> tuple[int, int] | None:
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


def _message(data: bytes, head: int, start: int, end: int) -> Message:
    """A PUBLISH (section 3.3)."""
    try:
        at = start + 2 + (data[start] << 8 | data[start + 1])
        topic = data[start + 2 : at].decode("utf-8", "replace")
        number = 0
        if head & 0x06:
            number = data[at] << 8 | data[at + 1]
            at += 2
        size, at = _varint(data, at)
    except IndexError:
        raise ConnectionResetError("the broker sends what is no MQTT") from None
    if at + size > end:
        raise ConnectionResetError("the broker sends what is no MQTT")
    return Message(topic, data[at + size : end], number)


def _varint(data: bytes, at: int) -> tuple[int, int]:
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


def _server_keep_alive(body: bytes) -> int | None:
    """What a CONNACK says that we have to keep to, in seconds (section 3.2.2.3.14)."""
    size, at = _varint(body, 2)
    end = at + size
    while at < end:
        kind = body[at]
        if kind == _SERVER_KEEP_ALIVE:
            return body[at + 1] << 8 | body[at + 2]
        at += 1
        if kind in _BYTES_OF:
            at += _BYTES_OF[kind]
            continue
        for _ in range(2 if kind == _USER_PROPERTY else 1):
            at += 2 + (body[at] << 8 | body[at + 1])
    return None


def _subscribe(filters: Sequence[str]) -> bytes:
    """SUBSCRIBE at QoS 1 (section 3.8)."""
    body = b"\x00\x01\x00" + b"".join(_text(wanted) + b"\x01" for wanted in filters)
    return b"\x82" + _length(len(body)) + body


def _text(word: str) -> bytes:
    data = word.encode()
    return struct.pack(">H", len(data)) + data


def _length(size: int) -> bytes:
    """A variable byte integer (section 1.5.5)."""
    written = bytearray()
    while True:
        size, digit = size >> 7, size & 0x7F
        written.append(digit | (0x80 if size else 0))
        if not size:
            return bytes(written)
