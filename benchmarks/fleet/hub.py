"""What a device costs a hub: processor time an event, memory and disk a device, at several sizes of the fleet.

    python -m benchmarks.fleet.hub
    python -m benchmarks.fleet.hub --sizes 1000,3000,10000 --rounds 6 --json

A real mosquitto, the real `edgewright fleet hub` in a process of its own, and payloads that the agent's own
exporter wrote, with latency by stage, energy, heat and memory. Each device comes online, reports, and sends
`--rounds` windows. The processor time is the hub process's own (user and system), so that a busy machine changes
it little; memory is the growth of its resident set, after it started, over the devices. Windows are sent at once,
which is what a hub can take, or `--rate` a second, where a batch holds few messages and each costs more.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from edgewright.contract import to_json
from edgewright.mqtt import BrokerSettings, connect, disconnect, make_client
from edgewright.telemetry import names
from edgewright.twin import DeviceStatus, ReleaseReference, ReportedState, RunningRelease, topic
from edgewright_agent.exporter import Exporter, model_attributes

PROFILES = ("raspberry-pi-5", "jetson-orin-nano", "x86-64-gateway")
RELEASES = tuple(
    ReleaseReference(name="net", version=version, digest="sha256:" + version[0] * 64)
    for version in ("1.0.0", "2.0.0")
)
MAX_US, MAX_BYTES = 40.0, 4000
TICKS = os.sysconf("SC_CLK_TCK")


@click.command()
@click.option("--sizes", default="1000,3000,10000", show_default=True, help="Devices, by commas.")
@click.option(
    "--rounds", default=6, show_default=True, type=click.IntRange(1), help="Windows of each device."
)
@click.option(
    "--rate", default=0.0, show_default=True, help="Windows a second; 0: as fast as the broker takes them."
)
@click.option("--json", "as_json", is_flag=True)
def main(sizes: str, rounds: int, rate: float, as_json: bool) -> None:
    """Measure a hub. Exits with 1 beyond 40 µs an event or 4 kB a device."""
    results = [measured(int(size), rounds, rate) for size in sizes.split(",")]
    if as_json:
        click.echo(json.dumps(results, indent=2))
    else:
        click.echo("| devices | events | CPU an event, µs | memory a device, B | disk a window, B |")
        click.echo("| --- | --- | --- | --- | --- |")
        for r in results:
            figures = (f"{r['cpu_us']:.1f}", f"{r['memory_bytes']:.0f}", f"{r['disk_bytes']:.0f}")
            click.echo(f"| {r['devices']} | {r['events']} | {' | '.join(figures)} |")
    worst = results[-1]
    sys.exit(int(worst["cpu_us"] > MAX_US or worst["memory_bytes"] > MAX_BYTES))


def measured(devices: int, rounds: int, rate: float) -> dict[str, float]:
    """One fleet of so many devices, from its first message to its last."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        broker = _start_broker(folder)
        hub: subprocess.Popen[bytes] | None = None
        try:
            settings = BrokerSettings(host="127.0.0.1", port=_port_of(folder))
            store = folder / "hub.sqlite"
            hub = subprocess.Popen(
                [
                    *(sys.executable, "-m", "edgewright_cli.main", "fleet", "hub", "--fleet", "bench"),
                    *(
                        "--broker",
                        str(settings),
                        "--listen",
                        f"127.0.0.1:{_free_port()}",
                        "--store",
                        str(store),
                    ),
                ],
                stderr=subprocess.PIPE,
            )
            assert hub.stderr is not None
            hub.stderr.readline()
            before_s, before_bytes = _cpu_s(hub.pid), _resident(hub.pid)
            _send_twins(settings, devices)
            _send_windows(settings, devices, rounds, rate)
            _wait_for(store, devices * rounds)
            events = devices * (2 + rounds)
            return {
                "devices": devices,
                "events": events,
                "cpu_us": (_cpu_s(hub.pid) - before_s) / events * 1e6,
                "memory_bytes": (_resident(hub.pid) - before_bytes) / devices,
                "disk_bytes": store.stat().st_size / (devices * rounds),
            }
        finally:
            for process in (hub, broker):
                if process is not None:
                    process.send_signal(signal.SIGTERM)
                    process.wait(20)


def _send_twins(settings: BrokerSettings, devices: int) -> None:
    client = make_client(settings, "twins")
    connect(client, settings)
    for number in range(devices):
        device, release = f"device-{number:05}", RELEASES[number % 2]
        report = ReportedState(
            device=device,
            profile=PROFILES[number % 3],
            boot=f"{number:032x}",
            sequence=3,
            phase="committed",
            running=RunningRelease(release=release, artifact=release.digest, runtime="onnxruntime 1.32.0"),
        )
        client.publish(
            topic("bench", device, "status"),
            to_json(DeviceStatus(online=True, boot=report.boot)),
            qos=1,
            retain=True,
        )
        client.publish(
            topic("bench", device, "reported"), to_json(report), qos=1, retain=True
        ).wait_for_publish(30)
    disconnect(client)


def _send_windows(settings: BrokerSettings, devices: int, rounds: int, rate: float) -> None:
    client = make_client(settings, "windows")
    client.max_inflight_messages_set(200)
    connect(client, settings)
    rng = random.Random(0)
    exporters = [
        Exporter(fleet="bench", device=f"device-{n:05}", profile=PROFILES[n % 3], boot=f"{n:032x}")
        for n in range(devices)
    ]
    start_s = time.monotonic()
    for turn in range(rounds):
        for number, exporter in enumerate(exporters):
            payload = _window(exporter, RELEASES[number % 2], rng)
            message = client.publish(topic("bench", f"device-{number:05}", "metrics"), payload, qos=1)
            sent = turn * devices + number + 1
            if sent % 200 == 0:
                message.wait_for_publish(60)
            if rate:
                time.sleep(max(0.0, start_s + sent / rate - time.monotonic()))
    message.wait_for_publish(60)
    disconnect(client)


def _window(exporter: Exporter, release: ReleaseReference, rng: random.Random) -> bytes:
    model = model_attributes(release)
    for _ in range(40):
        exporter.record(
            model,
            0.02 * rng.lognormvariate(0, 0.2),
            queue_s=1e-5 * rng.lognormvariate(0, 0.2),
            preprocessing_s=1e-3 * rng.lognormvariate(0, 0.2),
            postprocessing_s=1e-4 * rng.lognormvariate(0, 0.2),
        )
    exporter.record_energy(240.0, "ina3221 VDD_IN")
    exporter.set(names.ENERGY_UNCERTAINTY, "J", 2.4)
    exporter.set(names.ENERGY_ABOVE_IDLE, "J", 60.0 + rng.random())
    exporter.set(names.ENERGY_ABOVE_IDLE_UNCERTAINTY, "J", 3.0)
    exporter.set(names.POWER_IDLE, "W", 3.0)
    exporter.set(names.TEMPERATURE, "Cel", 50 + 10 * rng.random(), {names.SENSOR: "cpu-thermal"})
    exporter.set(names.CPU_FREQUENCY, "Hz", 1.5e9, {names.LOGICAL_CPU: "0"})
    exporter.set(names.PROCESS_MEMORY, "By", 9e7)
    exporter.add(names.PROCESS_CPU, "s", 1.2)
    exporter.set(names.MEMORY_AVAILABLE, "By", 2e9)
    return exporter.collect()


def _wait_for(store: Path, windows: int) -> None:
    database = sqlite3.connect(store)
    end = time.monotonic() + 300
    while database.execute("SELECT count(*) FROM window").fetchone()[0] < windows:
        if time.monotonic() > end:
            raise click.ClickException("the hub did not get every window within five minutes")
        time.sleep(0.3)
    database.close()


def _start_broker(folder: Path) -> subprocess.Popen[bytes]:
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        raise click.ClickException("mosquitto is not installed")
    port = _free_port()
    (folder / "port").write_text(str(port))
    config = folder / "mosquitto.conf"
    # A burst of a whole fleet is not dropped; what a client is sent ahead is left as mosquitto has it, 20.
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n")
    broker = subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL)
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            break
        except OSError:
            time.sleep(0.05)
    return broker


def _port_of(folder: Path) -> int:
    return int((folder / "port").read_text())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _resident(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


if __name__ == "__main__":
    main()
