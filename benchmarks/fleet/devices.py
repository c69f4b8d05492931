"""Simulated devices for the scale benchmark: many in one process, each with a connection of its own.

A device speaks MQTT 3.1.1 over a raw socket as far as it needs: it connects with a last will, is told what to run
by its retained wish, goes through the agent's phases with a report each, and sends a payload that the agent's own
exporter made, patched with its name, its boot, its sequence and what it runs. Commands come on standard input, a
line each, and are answered by a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import random
import struct
import sys
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field

from edgewright.contract import from_json, to_json
from edgewright.telemetry import names
from edgewright.telemetry.otlp import DICTIONARY
from edgewright.twin import (
    DesiredState,
    DeviceStatus,
    Leaf,
    Phase,
    ReleaseReference,
    ReportedState,
    RunningRelease,
    topic,
)
from edgewright_agent.exporter import Exporter, model_attributes

FLEET, PROFILE = "scale", "gateway"
UPDATE: tuple[tuple[Phase, float], ...] = (
    ("downloading", 1.0),
    ("verifying", 0.5),
    ("proving", 1.0),
    ("switching", 0.5),
    ("watching", 2.0),
)
"""The phases of an update and how long each takes, in seconds."""
_NAME, _BOOT, _SEQUENCE = "device-name-0000", "boot-000000000000", 0x1122334455667788


def device_name(number: int) -> str:
    """Sixteen letters, as the template's is, so that it can be patched."""
    return f"device-{number:09}"


@dataclass
class World:
    """What the devices of the process share."""

    release: ReleaseReference
    period_s: float
    template: bytes
    published: int = 0
    bytes: int = 0
    connected: int = 0
    told_s: list[float] = field(default_factory=list)
    running: Counter[str] = field(default_factory=Counter)


def template(release: ReleaseReference) -> bytes:
    """A minute of an agent's telemetry as bare protobuf: all stages, energy, heat and the process."""
    exporter = Exporter(fleet=FLEET, device=_NAME, profile=PROFILE, boot=_BOOT)
    attributes, noise = model_attributes(release), random.Random(1)
    for _ in range(60):
        run_s = 0.01 * noise.lognormvariate(0.0, 0.08)
        exporter.record(attributes, run_s, queue_s=1e-5, preprocessing_s=2e-4, postprocessing_s=1e-4)
    exporter.record_energy(180.0, "ina3221 VDD_IN")
    for name, unit, value in (
        (names.ENERGY_UNCERTAINTY, "J", 2.0),
        (names.ENERGY_ABOVE_IDLE, "J", 12.0),
        (names.POWER_IDLE, "W", 2.8),
        (names.SENSOR_PERIOD, "s", 0.1),
        (names.MEMORY_AVAILABLE, "By", 2_000_000_000),
        (names.PROCESS_MEMORY, "By", 120_000_000),
        (names.FILESYSTEM_UTILIZATION, "1", 0.4),
    ):
        exporter.set(name, unit, value)
    exporter.set(names.TEMPERATURE, "Cel", 51.5, {names.SENSOR: "cpu-thermal"})
    exporter.set(names.CPU_FREQUENCY, "Hz", 1.5e9, {names.LOGICAL_CPU: "0"})
    exporter.add(names.PROCESS_CPU, "s", 0.9)
    exporter.payloads = _SEQUENCE
    inflate = zlib.decompressobj(zdict=DICTIONARY)
    return inflate.decompress(exporter.collect())


class Device(asyncio.Protocol):
    """One device and its connection."""

    __slots__ = (
        "boot",
        "buffer",
        "name",
        "packet",
        "payloads",
        "reports",
        "running",
        "transport",
        "wish",
        "world",
    )

    def __init__(self, world: World, number: int) -> None:
        self.world, self.name, self.boot = world, device_name(number), f"boot-{number:012}"
        self.running = world.release
        self.wish: DesiredState | None = None
        self.payloads = self.reports = self.packet = 0
        self.buffer = b""
        self.transport: asyncio.Transport | None = None
        world.running[self.running.digest] += 1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        will = to_json(DeviceStatus(online=False, boot=self.boot))
        # Clean session, will at QoS 1 and retained (MQTT 3.1.1, section 3.1).
        body = _text("MQTT") + bytes((4, 0b0010_1110)) + struct.pack(">H", 120)
        body += (
            _text(self.name) + _text(topic(FLEET, self.name, "status")) + struct.pack(">H", len(will)) + will
        )
        transport.write(b"\x10" + _length(len(body)) + body)

    def data_received(self, data: bytes) -> None:
        data = self.buffer + data
        while (span := _packet(data)) is not None:
            first, end = span
            if data[0] == 0x20:
                self._connected()
            elif data[0] & 0xF0 == 0x30:
                self._wished(data[0], data[first:end])
            data = data[end:]
        self.buffer = data

    def _connected(self) -> None:
        assert self.transport is not None
        self.world.connected += 1
        body = b"\x00\x01" + _text(topic(FLEET, self.name, "desired")) + b"\x01"
        self.transport.write(b"\x82" + _length(len(body)) + body)
        self._publish("status", to_json(DeviceStatus(online=True, boot=self.boot)), retain=True)
        self._report("committed")
        loop = asyncio.get_running_loop()
        loop.call_later(random.uniform(0, self.world.period_s), self._measure)

    def _wished(self, command: int, body: bytes) -> None:
        assert self.transport is not None
        at = 2 + (body[0] << 8 | body[1])
        if command & 0x06:
            self.transport.write(b"\x40\x02" + body[at : at + 2])
            at += 2
        self.world.told_s.append(time.time())
        first = self.wish is None
        self.wish = from_json(DesiredState, body[at:], where=self.name)
        if first:
            asyncio.get_running_loop().create_task(self._update())

    async def _update(self) -> None:
        while self.wish is not None:
            wish = self.wish
            if wish.release != self.running:
                for phase, seconds in UPDATE:
                    self._report(phase, wish)
                    await asyncio.sleep(seconds)
                self.world.running[self.running.digest] -= 1
                self.running = wish.release
                self.world.running[self.running.digest] += 1
            self._report("committed", wish)
            if self.wish is wish:
                self.wish = None

    def _report(self, phase: Phase, wish: DesiredState | None = None) -> None:
        running = RunningRelease(
            release=self.running, artifact=self.running.digest, runtime="onnxruntime 1.32"
        )
        report = ReportedState(
            device=self.name,
            profile=PROFILE,
            boot=self.boot,
            sequence=self.reports,
            phase=phase,
            running=running,
            target=wish.release if wish else None,
            rollout=wish.rollout if wish else None,
        )
        self.reports += 1
        self._publish("reported", to_json(report), retain=True)

    def _measure(self) -> None:
        digest = self.running.digest.encode()
        payload = (
            self.world.template.replace(_NAME.encode(), self.name.encode())
            .replace(_BOOT.encode(), self.boot.encode())
            .replace(struct.pack("<q", _SEQUENCE), struct.pack("<q", self.payloads))
            .replace(self.world.release.digest.encode(), digest)
        )
        self.payloads += 1
        deflate = zlib.compressobj(9, zdict=DICTIONARY)
        self._publish("metrics", deflate.compress(payload) + deflate.flush())
        asyncio.get_running_loop().call_later(self.world.period_s, self._measure)

    def _publish(self, leaf: Leaf, payload: bytes, *, retain: bool = False) -> None:
        assert self.transport is not None
        self.packet = self.packet % 65_535 + 1
        where = topic(FLEET, self.name, leaf)
        body = _text(where) + struct.pack(">H", self.packet) + payload
        self.transport.write(bytes((0x32 | retain,)) + _length(len(body)) + body)
        self.world.published += 1
        self.world.bytes += len(payload)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">H", len(data)) + data


def _length(length: int) -> bytes:
    coded = bytearray()
    while True:
        length, low = divmod(length, 128)
        coded.append(low | (0x80 if length else 0))
        if not length:
            return bytes(coded)


def _packet(data: bytes) -> tuple[int, int] | None:
    length = shift = 0
    for at, byte in enumerate(data[1:5], 2):
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (at, at + length) if at + length <= len(data) else None
        shift += 7
    return None


async def _serve(world: World, devices: int, port: int) -> None:
    loop = asyncio.get_running_loop()
    for number in range(devices):
        await loop.create_connection(lambda n=number: Device(world, n), "127.0.0.1", port)  # type: ignore[misc]
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        if line == b"mark\n":
            world.told_s.clear()
        answer = {
            "connected": world.connected,
            "published": world.published,
            "bytes": world.bytes,
            "told": len(world.told_s),
            "told_first_s": min(world.told_s, default=None),
            "told_last_s": max(world.told_s, default=None),
            "running": dict(world.running),
        }
        print(json.dumps(answer), flush=True)


def main() -> None:
    """DEVICES PORT PERIOD_S RELEASE_JSON: connect, and answer commands until standard input ends."""
    devices, port, period_s, release = sys.argv[1:]
    running = from_json(ReleaseReference, release.encode(), where="argument")
    asyncio.run(_serve(World(running, float(period_s), template(running)), int(devices), int(port)))


if __name__ == "__main__":
    main()
