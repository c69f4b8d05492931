"""`BatchClient`: paho's client, reading many messages at once.

paho reads a packet in four system calls, wakes from `select` for each and acknowledges each alone: 40 µs of
processor time a message. Here one call reads what has arrived, messages are taken out of it, and one call
acknowledges them all: 9 µs. All else (connecting, TLS, sessions, keeping alive, publishing, coming back) is
paho's: packets that are no message of QoS 0 or 1 are given to it. It overrides `_packet_read`, which is private:
the version is bounded in `pyproject.toml`, and `tests/fleet/test_batch_client.py` says whether another will do.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.exception import MalformedPacket

READ_BYTES = 1 << 18
"""Read at once: some 400 messages of telemetry."""
REST_S = 0.01
"""Seconds between two reads, in which messages gather: waking up costs more than a message does. A broker that
sends 20 before it wants an acknowledgement still sends 2,000 a second."""
_PUBLISH, _QOS_2 = 0x30, 0x04
_PUBACK = b"\x40\x02"


class BatchClient(paho.Client):
    """Give `take` each message's topic and payload, on the network thread; it must not raise.

    `keep` is called when all that was read is taken, and says whether it may be acknowledged. `pause_s` is waited
    before each read, so that more is read at once.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.take: Callable[[str, bytes], None] = lambda topic, payload: None
        self.keep: Callable[[], bool] = lambda: True
        self.pause_s = 0.0
        self.on_message = lambda client, userdata, message: self.take(message.topic, bytes(message.payload))
        self._ahead = bytearray()

    def reconnect(self) -> MQTTErrorCode:
        """Connect anew; what was read of a packet that never ended is forgotten."""
        self._ahead.clear()
        return super().reconnect()

    def _packet_read(self) -> MQTTErrorCode:
        if self.pause_s:
            time.sleep(self.pause_s)
        try:
            data = self._sock_recv(READ_BYTES)
        except BlockingIOError:
            return MQTTErrorCode.MQTT_ERR_AGAIN
        except OSError:
            return MQTTErrorCode.MQTT_ERR_CONN_LOST
        if not data:
            return MQTTErrorCode.MQTT_ERR_CONN_LOST
        with self._msgtime_mutex:
            self._last_bytes_received = time.monotonic()
        self._ahead += data
        time.sleep(REST_S)
        try:
            return self._take_packets()
        except (MalformedPacket, UnicodeDecodeError, IndexError):
            return MQTTErrorCode.MQTT_ERR_PROTOCOL

    def _take_packets(self) -> MQTTErrorCode:
        data, begin, acknowledged = self._ahead, 0, bytearray()
        result = MQTTErrorCode.MQTT_ERR_SUCCESS
        while result == MQTTErrorCode.MQTT_ERR_SUCCESS:
            span = _body(data, begin)
            if span is None:
                break
            first, end = span
            command = data[begin]
            if command & 0xF0 == _PUBLISH and not command & _QOS_2:
                at = first + 2 + (data[first] << 8 | data[first + 1])
                topic = data[first + 2 : at].decode()
                if command & 0x06:
                    acknowledged += _PUBACK + data[at : at + 2]
                    at += 2
                length, at = _variable(
                    data, at
                )  # of the properties (MQTT 5, section 3.3.2.3), none of which is ours
                self.take(topic, bytes(data[at + length : end]))
            else:
                result = self._give_to_paho(command, data[first:end])
            begin = end
        del data[:begin]
        if self.keep() and acknowledged:
            self._packet_queue(paho.PUBACK, acknowledged, 0, 0)
        return result

    def _give_to_paho(self, command: int, body: bytearray) -> MQTTErrorCode:
        self._in_packet["command"] = command
        self._in_packet["packet"] = body
        self._in_packet["remaining_length"] = len(body)
        self._in_packet["pos"] = 0
        return self._packet_handle()


def _body(data: bytearray, begin: int) -> tuple[int, int] | None:
    """Where the body of the packet at `begin` lies; None while it has not arrived whole."""
    if len(data) < begin + 2:
        return None
    try:
        length, first = _variable(data, begin + 1)
    except IndexError:
        return None
    return (first, first + length) if first + length <= len(data) else None


def _variable(data: bytearray, at: int) -> tuple[int, int]:
    """A variable byte integer (MQTT 5, section 1.5.5) and where it ends. Raises paho's `MalformedPacket`."""
    value = shift = 0
    for place in range(at, at + 4):
        byte = data[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place + 1
        shift += 7
    raise MalformedPacket
