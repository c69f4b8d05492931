"""`Receiver`: many small messages from a broker, at a fraction of what a general client costs.

A hub hears of every device each minute and publishes nothing. paho reads each message with three system calls and
more, and answers each with two, from a thread of its own: 38 µs a message, before anything was done with it. Here
one call takes what the socket has, a loop cuts it into messages, and one write acknowledges a batch: 5 µs.

The packets are in `mqtt_packets.py`; sections are those of MQTT 5 (OASIS standard, 2019). Not for two threads at
once. Whoever publishes uses `mqtt.py`.
"""

from __future__ import annotations

import logging
import random
import select
import socket
import time
from collections.abc import Sequence

from edgewright.errors import BrokerError
from edgewright.mqtt import CONNECT_TIMEOUT_S, KEEPALIVE_S, BrokerSettings, password, tls_context
from edgewright.mqtt_packets import (
    CONNACK,
    DISCONNECT,
    GOODBYE,
    PING,
    PUBLISH,
    SUBACK,
    Message,
    acknowledgement,
    hello,
    packet,
    read_message,
    server_keep_alive,
    subscribe,
    varint,
)

log = logging.getLogger("edgewright.mqtt")
READ = 1 << 18
LONGEST_WAIT_S = 60.0


class Receiver:
    """Subscribed to `filters` at QoS 1, in a session that the broker keeps for `session_s` while we are away.

    Raises `BrokerError` where the broker is down, silent or refuses at first; later it connects again by itself.
    """

    def __init__(
        self, settings: BrokerSettings, client_id: str, filters: Sequence[str], *, session_s: int
    ) -> None:
        self.settings = settings
        self._id, self._filters, self._session_s = client_id.replace("/", ":"), filters, session_s
        self._context = tls_context(settings)
        self._password = password(settings)
        self._socket: socket.socket | None = None
        self._poll = select.poll()
        self._rest = b""
        self._came_early = False
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
                if self._came_early or self._readable(remaining_s):
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
            self._send(b"".join(map(acknowledgement, numbers)))
        except OSError as error:
            self._lost(str(error))

    def close(self) -> None:
        """Leave; the broker keeps the session for its time, and sends what was not acknowledged to the next."""
        if self._socket is not None:
            try:
                self._send(GOODBYE)
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
            self._send(hello(self._id, self._session_s, KEEPALIVE_S, self.settings.username, self._password))
            session_is_there = self._await_acceptance(self._wait_for(CONNACK))
            # To subscribe anew would make the embedded broker (rumqttd 0.20) forget what it kept for us.
            if not session_is_there:
                self._send(subscribe(self._filters))
                self._await_grant(self._wait_for(SUBACK))
        except (OSError, IndexError) as error:
            self._drop(plain)
            raise BrokerError(f"the MQTT broker does not answer ({error})", where=where) from None
        except BrokerError:
            self._drop(plain)
            raise
        self._failures = 0
        # What a session kept for us comes with the broker's answer, and no descriptor tells of it any more.
        self._came_early = bool(self._rest)

    def _await_acceptance(self, body: bytes) -> bool:
        session_is_there, reason = bool(body[0] & 1), body[1]
        if reason >= 0x80:
            raise BrokerError(
                f"the MQTT broker refuses the connection (reason 0x{reason:02x})",
                where=str(self.settings),
                remedy="check its log",
            )
        self._keep_alive_s = float(server_keep_alive(body) or KEEPALIVE_S)
        return session_is_there

    def _await_grant(self, body: bytes) -> None:
        size, at = varint(body, 2)
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
            while (place := packet(self._rest, at)) is not None:
                start, end = place
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
        if self._came_early:
            self._came_early = False
        else:
            self._fill()
        data, at, found = self._rest, 0, []
        while (place := packet(data, at)) is not None:
            start, end = place
            kind = data[at] >> 4
            if kind == PUBLISH:
                message = read_message(data, data[at], start, end)
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
            self._send(PING)
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
