"""`BatchClient`: paho's client, reading many messages at once.

paho reads a packet in four system calls, wakes from `select` for each and acknowledges each alone: 40 µs of
processor time a message. Here messages gather, are read by one call, taken out of what it gave, and acknowledged
by one call: 2 µs in a rush, 13 µs at 170 a second. That the broker has a message of ours is taken note of at a
third of the cost. All else (connecting, TLS, sessions, keeping alive, publishing, coming back) is paho's: other
packets are given to it. It overrides `_packet_read`, looks at `_sockpairR` and `_out_messages` and calls
`_do_on_publish`, which are private: the version is bounded in `pyproject.toml`, and
`tests/fleet/test_batch_client.py` says whether another will do.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.exception import MalformedPacket
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

READ_BYTES = 1 << 18
"""Read at once: some 400 messages of telemetry."""
REST_S = 0.01
"""Seconds in which messages gather where many more are on their way."""
_PUBLISH, _QOS_2 = 0x30, 0x04
_PUBACK = b"\x40\x02"
_SUCCESS = ReasonCode(PacketTypes.PUBACK)
_NO_PROPERTIES = Properties(PacketTypes.PUBACK)  # type: ignore[no-untyped-call]


class BatchClient(paho.Client):
    """Give `take` each message's topic and payload, on the network thread; it must not raise.

    `keep` is called when all that was read is taken, and says whether it may be acknowledged. Messages gather for
    `pause_s` before they are read, as waking up costs many times a message; where there are about as many as ever
    came at once the broker may hold more back, and the next are read soon.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.take: Callable[[str, bytes], None] = lambda topic, payload: None
        self.keep: Callable[[], bool] = lambda: True
        self.pause_s = REST_S
        self._most = 0
        self._more = True
        self.on_message = lambda client, userdata, message: self.take(message.topic, bytes(message.payload))
        self._ahead = bytearray()

    def reconnect(self) -> MQTTErrorCode:
        """Connect anew; what was read of a packet that never ended is forgotten."""
        self._ahead.clear()
        return super().reconnect()

    def _packet_read(self) -> MQTTErrorCode:
        # Not longer than until somebody has something to say.
        woken = [self._sockpairR] if self._sockpairR is not None else []
        select.select(woken, [], [], REST_S if self._more else self.pause_s)
        heard = False
        try:
            while data := self._sock_recv(READ_BYTES):  # TLS gives a record at a time
                self._ahead += data
                heard = True
        except BlockingIOError:
            if not heard:
                return MQTTErrorCode.MQTT_ERR_AGAIN
        except OSError:
            return MQTTErrorCode.MQTT_ERR_CONN_LOST
        if not heard:  # the end; where something came before it, the next read finds it again
            return MQTTErrorCode.MQTT_ERR_CONN_LOST
        with self._msgtime_mutex:
            self._last_bytes_received = time.monotonic()
        try:
            result = self._take_packets()
        except (MalformedPacket, UnicodeDecodeError, IndexError):
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        # All is read: paho need not ask again.
        return result if result != MQTTErrorCode.MQTT_ERR_SUCCESS else MQTTErrorCode.MQTT_ERR_AGAIN

    def _take_packets(self) -> MQTTErrorCode:
        data, begin, take = bytes(self._ahead), 0, self.take
        size = len(data)
        answers: list[bytes] = []
        result = MQTTErrorCode.MQTT_ERR_SUCCESS
        while begin + 2 <= size and result == MQTTErrorCode.MQTT_ERR_SUCCESS:
            command, length, first = data[begin], data[begin + 1], begin + 2
            if length > 127:
                try:
                    length, first = _variable(data, begin + 1)
                except IndexError:  # the rest of it has not arrived
                    break
            end = first + length
            if end > size:
                break
            if command & 0xF0 == _PUBLISH and not command & _QOS_2:
                at = first + 2 + (data[first] << 8 | data[first + 1])
                topic = data[first + 2 : at].decode()
                if command & 0x06:
                    answers.append(data[at : at + 2])
                    at += 2
                # The properties (MQTT 5, section 3.3.2.3), none of which is ours.
                length, at = (data[at], at + 1) if data[at] < 128 else _variable(data, at)
                take(topic, data[at + length : end])
            elif command == paho.PUBACK and length == 2:
                result = self._published(data[first] << 8 | data[first + 1])
            else:
                result = self._give_to_paho(command, bytearray(data[first:end]))
            begin = end
        del self._ahead[:begin]
        self._most = max(self._most, len(answers))
        self._more = bool(answers) and 2 * len(answers) >= self._most
        if self.keep() and answers:
            self._packet_queue(paho.PUBACK, _PUBACK + _PUBACK.join(answers), 0, 0)
        return result

    def _published(self, number: int) -> MQTTErrorCode:
        """The broker has a message of ours, and says no more of it: success (MQTT 5, section 3.4.2.1)."""
        with self._out_message_mutex:
            if number not in self._out_messages:
                return MQTTErrorCode.MQTT_ERR_SUCCESS
            return self._do_on_publish(number, _SUCCESS, _NO_PROPERTIES)

    def _give_to_paho(self, command: int, body: bytearray) -> MQTTErrorCode:
        self._in_packet["command"] = command
        self._in_packet["packet"] = body
        self._in_packet["remaining_length"] = len(body)
        self._in_packet["pos"] = 0
        return self._packet_handle()


def _variable(data: bytes, at: int) -> tuple[int, int]:
    """A variable byte integer (MQTT 5, section 1.5.5) and where it ends. Raises paho's `MalformedPacket`."""
    value = shift = 0
    for place in range(at, at + 4):
        byte = data[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place + 1
        shift += 7
    raise MalformedPacket
