"""What the scale benchmark found, a line through it, and how it is shown: Markdown and a picture."""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.fleet.processes import host

PERIOD_S = 60.0
"""Of a device's telemetry."""
MAX_US, MAX_BYTES = 40.0, 4000


@dataclass(frozen=True)
class Line:
    """What one event and one device more cost, without what a process costs by itself."""

    microseconds_per_event: float
    bytes_per_device: float

    @property
    def within_limits(self) -> bool:
        return self.microseconds_per_event <= MAX_US and self.bytes_per_device <= MAX_BYTES


@dataclass(frozen=True)
class Run:
    """One rollout to completion; processor times in seconds, of the broker and the floors from its start."""

    devices: int
    start_s: float
    events: int
    steady_s: float
    peak_memory_bytes: int
    completed_s: float
    store_bytes: int
    broker_s: float
    broker_packets: int
    floor_us: dict[str, float]
    hub_us: float
    """Of the hub's processor time an event, with what it costs by the second."""
    event_bytes: float

    @property
    def event_us(self) -> float:
        """Of the steady part, by its events."""
        return 1e6 * self.steady_s / self.events


@dataclass(frozen=True)
class Stop:
    """An emergency stop of a rollout that all devices run."""

    devices: int
    first_told_s: float
    last_told_s: float


@dataclass(frozen=True)
class Result:
    """What was measured; a line takes two sizes."""

    date: str
    host: str
    runs: tuple[Run, ...]
    stop: Stop | None
    line: Line | None


def result_of(runs: list[Run], stop: Stop | None) -> Result:
    """The runs, and the cost of one event and one device more."""
    line = None
    if len(runs) > 1:
        each = np.polyfit([run.events for run in runs], [run.steady_s for run in runs], 1)[0]
        size = np.polyfit([run.devices for run in runs], [run.peak_memory_bytes for run in runs], 1)[0]
        line = Line(1e6 * float(each), float(size))
    today = datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
    return Result(today, host(), tuple(runs), stop, line)


def as_markdown(result: Result) -> str:
    """The result for people."""
    lines = [
        f"# The fleet's controller at scale, {result.date}",
        "",
        f"`python -m benchmarks.fleet.scale --write`; measured on {result.host}.",
        "",
        "An event is a message about a device that reaches the controller: a report, a presence, a window of "
        "telemetry. Start-up is Python, its imports and what is retained of each device (two messages); the rest "
        "is steady. The floor is what the same messages cost a subscriber that does nothing with them. "
        "A hub ran beside the controller; its figure holds what it costs by the second.",
        "",
        "| devices | start-up, s | events | processor time, s | µs an event | floor: paho, µs | floor: ours, µs | "
        "times our floor | peak memory, MB | rolled out to all in, s | store, MB | hub, µs an event | "
        "broker, µs a packet |",
        "| ---: " * 13 + "|",
    ]
    lines += [
        f"| {r.devices:,} | {r.start_s:.2f} | {r.events:,} | {r.steady_s:.2f} | {r.event_us:.1f} | "
        f"{r.floor_us['paho']:.1f} | {r.floor_us['batch']:.1f} | {r.event_us / r.floor_us['batch']:.1f} | "
        f"{r.peak_memory_bytes / 1e6:.0f} | {r.completed_s:.0f} | {r.store_bytes / 1e6:.1f} | "
        f"{r.hub_us:.1f} | {1e6 * r.broker_s / r.broker_packets:.1f} |"
        for r in result.runs
    ]
    if (line := result.line) is not None:
        lines += [
            "",
            f"A line through them: **{line.microseconds_per_event:.1f} µs of processor time an event** "
            f"(receiving, decoding, the engine, the store; at most {MAX_US:g}) and "
            f"**{line.bytes_per_device / 1e3:.2f} kB of memory a device** (at most {MAX_BYTES / 1e3:g}).",
        ]
    if result.stop is not None:
        lines += [
            "",
            f"Emergency stop of a rollout that {result.stop.devices:,} devices run: from the command's start the "
            f"first device was told after {result.stop.first_told_s:.2f} s and the last after "
            f"{result.stop.last_told_s:.2f} s (wall clock).",
        ]
    if line is not None:
        lines += ["", *_a_million(line, result.runs[-1])]
    return "\n".join(lines) + "\n"


def _a_million(line: Line, last: Run) -> list[str]:
    each, size = line.microseconds_per_event, line.bytes_per_device
    rate, packet_us = 1e6 / PERIOD_S, 1e6 * last.broker_s / last.broker_packets
    cores, broker_cores = rate * each / 1e6, 3 * rate * packet_us / 1e6
    nodes = math.ceil(broker_cores / 0.7)
    return [
        "## A million devices, by this arithmetic (not measured)",
        "",
        f"- Telemetry every {PERIOD_S:g} s: 1,000,000 / {PERIOD_S:g} = {rate:,.0f} events a second.",
        f"- Processor: {rate:,.0f} × {each:.1f} µs = {cores:.2f} cores. One Python process has one: the fleet is "
        f"split by name into {math.ceil(cores / 0.7)} controllers at 70 % of one.",
        f"- Memory: 1,000,000 × {size / 1e3:.2f} kB = {1e6 * size / 1e9:.1f} GB over all of them.",
        f"- Broker: an event comes in and goes out to a controller and a hub, 3 × {rate:,.0f} × {packet_us:.1f} "
        f"µs = {broker_cores:.2f} cores. mosquitto has one a process: {nodes} nodes at 70 % of it, "
        f"{1e6 / nodes:,.0f} connections each.",
        f"- Bytes: {rate:,.0f} × {last.event_bytes / 1e3:.2f} kB = {rate * last.event_bytes / 1e6:.1f} MB/s of "
        "payload from the devices, as much to the controllers and as much to the hubs.",
    ]


def draw(result: Result, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    left.plot([r.events for r in result.runs], [r.steady_s for r in result.runs], "o-")
    left.set(xlabel="events", ylabel="processor time, s")
    right.plot([r.devices for r in result.runs], [r.peak_memory_bytes / 1e6 for r in result.runs], "o-")
    right.set(xlabel="devices", ylabel="peak memory, MB")
    if result.line is not None:
        left.set_title(f"{result.line.microseconds_per_event:.1f} µs an event")
        right.set_title(f"{result.line.bytes_per_device / 1e3:.2f} kB a device")
    for axis in (left, right):
        axis.set_xlim(0)
        axis.set_ylim(0)
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)
