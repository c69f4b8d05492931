"""What telemetry costs on the wire: bytes between a real agent and a real broker, counted by a relay between them.

The device has the sensors of a Jetson Orin Nano, whose files are written anew twice a second: a rail, two
temperatures, two clocks; it makes ten inferences a second, of a classifier with a reference for drift.
Counted is what MQTT carries both ways over TCP in whole telemetry periods of a connection that stands; headers of
TCP and IP are counted beside it, from what the kernel says of segments.
"""

from __future__ import annotations

import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.agent.photo_release import install
from benchmarks.mosquitto import Mosquitto
from edgewright_agent.agent import Agent
from edgewright_agent.config import load_config

HEADERS_BYTES = 52
"""Of a segment: 20 of IPv4, 20 of TCP, 12 of its timestamps, as Linux sends them."""
SEGMENTS_OFFSET = 136
"""Of `tcpi_segs_out` and `tcpi_segs_in` in `struct tcp_info` (linux/tcp.h)."""
START_S = 3.0
SENSOR_PERIOD_S = 0.5


@dataclass(frozen=True)
class Traffic:
    """Bytes of one device within some telemetry periods, both ways."""

    periods: int
    mqtt_bytes: int
    tcp_ip_bytes: int
    """Headers, on top."""

    def per_hour(self) -> tuple[float, float]:
        """(MQTT, with the headers) at a period of a minute."""
        return self.mqtt_bytes * 60 / self.periods, (self.mqtt_bytes + self.tcp_ip_bytes) * 60 / self.periods


class Relay:
    """Hands on one connection's bytes and counts them."""

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.bytes = 0
        self._device: socket.socket | None = None
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, args=(port,), daemon=True).start()

    def count(self) -> tuple[int, int]:
        """Bytes carried so far, and segments of the device's connection."""
        assert self._device is not None
        known = self._device.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, SEGMENTS_OFFSET + 8)
        return self.bytes, sum(struct.unpack_from("=II", known, SEGMENTS_OFFSET))

    def _accept(self, port: int) -> None:
        while True:
            self._device, _ = self._listener.accept()
            broker = socket.create_connection(("127.0.0.1", port))
            for ends in ((self._device, broker), (broker, self._device)):
                threading.Thread(target=self._hand_on, args=ends, daemon=True).start()

    def _hand_on(self, source: socket.socket, sink: socket.socket) -> None:
        while data := source.recv(1 << 16):
            with self._lock:
                self.bytes += len(data)
            sink.sendall(data)
        sink.close()


class WiredDevice:
    """A device whose bytes are counted from the beginning on, for `periods` telemetry periods."""

    def __init__(self, relay: Relay, period_s: float, periods: int) -> None:
        self._relay, self._periods = relay, periods
        self._before = relay.count()
        self._counted: Traffic | None = None
        # Read in time, whatever the caller does meanwhile.
        self._timer = threading.Timer(period_s * periods, self._read)
        self._timer.daemon = True
        self._timer.start()

    def traffic(self) -> Traffic:
        """What was counted, once the time is over."""
        self._timer.join()
        assert self._counted is not None
        return self._counted

    def _read(self) -> None:
        sent, segments = (now - then for now, then in zip(self._relay.count(), self._before, strict=True))
        self._counted = Traffic(self._periods, sent, segments * HEADERS_BYTES)


@contextmanager
def wired_device(folder: Path, broker: Mosquitto, period_s: float, periods: int) -> Iterator[WiredDevice]:
    """Start it; it counts once the connection stands and its first words are said."""
    relay = Relay(broker.settings.port)
    tables = f"[broker]\nport = {relay.port}\n[source]\nrate_hz = 10.0\n"
    install(folder, f"telemetry_period_s = {period_s}\n{tables}", device="line-3-camera-12")
    device = subprocess.Popen([sys.executable, "-m", "benchmarks.agent.wire", str(folder)])
    try:
        while not relay.bytes:
            if device.poll() is not None:
                raise click.ClickException("the device whose bytes are counted does not start")
            time.sleep(0.1)
        time.sleep(max(START_S, period_s / 6))
        yield WiredDevice(relay, period_s, periods)
    finally:
        device.terminate()
        device.wait(60)


def run_device(folder: Path) -> None:
    """The agent over the tree of sensors, until SIGTERM."""
    root = folder / "root"
    sensors = jetson_sensors(root)
    threading.Thread(target=_change, args=(sensors,), daemon=True).start()
    agent = Agent(load_config(folder / "agent.toml"), root=root)
    agent.stop_on_signals()
    agent.run()


def jetson_sensors(root: Path) -> dict[Path, tuple[int, int]]:
    """A tree as JetPack 6 shows it, and the lowest and highest reading of each file that changes."""
    hwmon = root / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1"
    thermal, clocks = root / "sys/class/thermal", root / "sys/devices/system/cpu"
    fixed = {
        hwmon / f"in{n}_label": name for n, name in ((1, "VDD_IN"), (2, "VDD_CPU_GPU_CV"), (3, "VDD_SOC"))
    }
    changing = {hwmon / f"in{n}_input": (4900, 5100) for n in (1, 2, 3)}
    changing |= {hwmon / f"curr{n}_input": (300, 2000) for n in (1, 2, 3)}
    for number, zone in enumerate(("cpu-thermal", "gpu-thermal")):
        fixed[thermal / f"thermal_zone{number}/type"] = zone
        changing[thermal / f"thermal_zone{number}/temp"] = (45_000, 65_000)
    for policy in (0, 4):
        cores = (0, 1, 2, 3) if policy == 0 else (4, 5)
        fixed[clocks / f"cpufreq/policy{policy}/related_cpus"] = " ".join(map(str, cores))
        fixed[clocks / f"cpufreq/policy{policy}/cpuinfo_max_freq"] = "1510400"
        changing[clocks / f"cpufreq/policy{policy}/scaling_cur_freq"] = (729_600, 1_510_400)
    for path, text in {**fixed, **{path: str(low) for path, (low, _) in changing.items()}}.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    (root / "proc").symlink_to("/proc")
    return changing


def _change(sensors: dict[Path, tuple[int, int]]) -> None:
    chance = random.Random(1)
    while True:
        for path, (low, high) in sensors.items():
            path.with_suffix(".new").write_text(f"{chance.randint(low, high)}\n")
            path.with_suffix(".new").rename(path)
        time.sleep(SENSOR_PERIOD_S)


if __name__ == "__main__":
    run_device(Path(sys.argv[1]))
