"""What a device costs a hub: processor time an event, memory and disk a device, at several sizes of the fleet.

    python -m benchmarks.fleet.hub
    python -m benchmarks.fleet.hub --sizes 1000,3000,10000 --rounds 6 --json

A real mosquitto, the real `edgewright fleet hub` in a process of its own, and payloads that the agent's own
exporter wrote, with latency by stage, energy, heat and memory. Each device comes online, reports, and sends
`--rounds` windows. The processor time is the hub process's own (user and system), so that a busy machine changes
it little; memory is the growth of its resident set, after it started. A line through the sizes gives the cost of
one event and of one device more. Windows are sent at once, which is what a hub can take, or `--rate` a second,
where a batch holds few messages and each costs more.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.fleet.processes import host, processor_s, resident_bytes, running_hub
from benchmarks.mosquitto import Mosquitto
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
PERIOD_S = 60.0
RESULTS = Path(__file__).parents[1] / "results"


@click.command()
@click.option("--sizes", default="1000,3000,10000", show_default=True, help="Devices, by commas.")
@click.option(
    "--rounds", default=6, show_default=True, type=click.IntRange(1), help="Windows of each device."
)
@click.option(
    "--rate", default=0.0, show_default=True, help="Windows a second; 0: as fast as the broker takes them."
)
@click.option(
    "--times",
    default=3,
    show_default=True,
    type=click.IntRange(1),
    help="How often each size is measured; the median counts.",
)
@click.option("--json", "as_json", is_flag=True)
@click.option("--write", is_flag=True, help="Keep the result in benchmarks/results.")
def main(sizes: str, rounds: int, rate: float, times: int, as_json: bool, write: bool) -> None:
    """Measure a hub. Exits with 1 beyond 40 µs an event or 4 kB a device."""
    # By turns: a host is slower for minutes at a time.
    all_runs = [[measured(int(size), rounds, rate) for size in sizes.split(",")] for _ in range(times)]
    runs = [median_of(of_a_size) for of_a_size in zip(*all_runs, strict=True)]
    today = datetime.now(timezone.utc).date().isoformat()
    document: dict[str, Any] = {
        "date": today,
        "host": host(),
        "rate": rate,
        "times": times,
        "runs": runs,
        **line_through(runs),
    }
    text = as_markdown(document)
    click.echo(json.dumps(document, indent=2) if as_json else text)
    if write:
        name = RESULTS / f"fleet-hub-{today}"
        name.with_suffix(".json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        name.with_suffix(".md").write_text(text, encoding="utf-8")
    sys.exit(int(document["event_us"] > MAX_US or document["device_bytes"] > MAX_BYTES))


def measured(devices: int, rounds: int, rate: float) -> dict[str, float]:
    """One fleet of so many devices, from its first message to its last."""
    with tempfile.TemporaryDirectory() as name, Mosquitto(Path(name), "max_queued_messages 0\n") as broker:
        settings, store = broker.settings, Path(name) / "hub.sqlite"
        with running_hub("bench", settings, store) as hub:
            start_s, start_bytes = processor_s(hub.pid), resident_bytes(hub.pid)
            _send_twins(settings, devices)
            sent_bytes = _send_windows(settings, devices, rounds, rate)
            _wait_for(store, devices * rounds)
            return {
                "devices": devices,
                "start_s": start_s,
                "start_bytes": start_bytes,
                "events": devices * (2 + rounds),
                "steady_s": processor_s(hub.pid) - start_s,
                "grown_bytes": resident_bytes(hub.pid) - start_bytes,
                "disk_bytes": _size(store) / (devices * rounds),
                "window_bytes": sent_bytes / (devices * rounds),
            }


def median_of(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of runs of one size, figure by figure, and the range of the processor time."""
    found = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    steady = [run["steady_s"] for run in runs]
    return found | {"least_steady_s": min(steady), "most_steady_s": max(steady)}


def line_through(runs: list[dict[str, float]]) -> dict[str, float]:
    """The cost of one event and of one device more; of the only run, its means."""

    def slope(x: str, y: str) -> float:
        if len(runs) == 1:
            return runs[0][y] / runs[0][x]
        return float(np.polyfit([run[x] for run in runs], [run[y] for run in runs], 1)[0])

    return {"event_us": 1e6 * slope("events", "steady_s"), "device_bytes": slope("devices", "grown_bytes")}


def as_markdown(document: dict[str, Any]) -> str:
    """The result for people."""
    each, size, last = document["event_us"], document["device_bytes"], document["runs"][-1]
    rate = 1e6 / PERIOD_S
    cores, disk = rate * each / 1e6, rate * last["disk_bytes"]
    lines = [
        f"# What a device costs a hub, {document['date']}",
        "",
        f"`python -m benchmarks.fleet.hub --write`; measured on {document['host']}. An event is a message that "
        "the hub keeps: a presence, a report, a window. "
        + (f"Windows came at {document['rate']:g} a second." if document["rate"] else "All came at once.")
        + f" Each size was measured {document['times']} times, by turns: medians, and the range of µs.",
        "",
        "| devices | start-up, s | events | processor time, s | µs an event | memory a device, B | "
        "disk a window, B |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(
            f"| {r['devices']:,} | {r['start_s']:.2f} | {r['events']:,} | {r['steady_s']:.2f} | "
            f"{1e6 * r['steady_s'] / r['events']:.1f} ({1e6 * r['least_steady_s'] / r['events']:.1f}–"
            f"{1e6 * r['most_steady_s'] / r['events']:.1f}) | {r['grown_bytes'] / r['devices']:.0f} | "
            f"{r['disk_bytes']:.0f} |"
            for r in document["runs"]
        ),
        "",
        f"A line through them: **{each:.1f} µs an event** (at most {MAX_US:g}) and **{size:.0f} B of memory a "
        f"device** (at most {MAX_BYTES:g}).",
        "",
        "## A million devices, by this arithmetic (not measured)",
        "",
        f"- A window every {PERIOD_S:g} s: 1,000,000 / {PERIOD_S:g} = {rate:,.0f} events a second, "
        f"× {each:.1f} µs = {cores:.2f} cores. Hubs at 70 % of one that share the subscription: "
        f"{math.ceil(cores / 0.7)}.",
        f"- Memory: every hub knows all devices, 1,000,000 × {size / 1e3:.2f} kB = "
        f"{1e6 * size / 1e9:.1f} GB each.",
        f"- Disk: {rate:,.0f} × {last['disk_bytes']:.0f} B = {disk / 1e6:.1f} MB/s, "
        f"{disk * 86400 / 1e9:,.0f} GB a day over all of them.",
        f"- Bytes: {rate:,.0f} × {last['window_bytes'] / 1e3:.2f} kB = "
        f"{rate * last['window_bytes'] / 1e6:.1f} MB/s of payload.",
    ]
    return "\n".join(lines) + "\n"


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


def _send_windows(settings: BrokerSettings, devices: int, rounds: int, rate: float) -> int:
    size = 0
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
            size += len(payload)
            message = client.publish(topic("bench", f"device-{number:05}", "metrics"), payload, qos=1)
            sent = turn * devices + number + 1
            if sent % 200 == 0:
                message.wait_for_publish(60)
            if rate:
                time.sleep(max(0.0, start_s + sent / rate - time.monotonic()))
    message.wait_for_publish(60)
    disconnect(client)
    return size


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


def _size(store: Path) -> int:
    """Of the file once the log beside it is in it."""
    with contextlib.closing(sqlite3.connect(store)) as database:
        query = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
        return int(database.execute(query).fetchone()[0])


if __name__ == "__main__":
    main()
