"""The controller at scale: `python -m benchmarks.fleet.scale [--devices 1000,3000,10000] [--write]`.

For each size, simulated devices connect to a mosquitto of the benchmark's own and report telemetry every 60 s, and
the real command rolls a release out to all of them. Measured are the processor time and the peak memory of that
process, over the number of messages that it was sent. A line through the sizes gives the cost of one message and
of one device; the start of a Python process is the constant. Then, at the largest size, a second rollout is
aborted when all devices run it, and the devices' own clocks say when each was told to go back.

Processor time and not the wall clock, as other programs may run beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.fleet.devices import FLEET, PROFILE
from edgewright.artifact.layout import MANIFEST_TYPE, Layout
from edgewright.artifact.release import FORMAT, publish
from edgewright.artifact.release import PROFILE as PROFILE_KEY
from edgewright.contract import to_json
from edgewright.twin import ReleaseReference

PERIOD_S = 60.0
TIMEOUT_S = 900.0
GATES = {"min_inferences": 50, "window_s": 30, "timeout_s": 600}
RESULTS = Path(__file__).parents[1] / "results"


@dataclass(frozen=True)
class Run:
    """One rollout to completion."""

    devices: int
    messages: int
    processor_s: float
    peak_memory_bytes: int
    completed_s: float
    store_bytes: int


@dataclass(frozen=True)
class Stop:
    """An emergency stop of a rollout that all devices run."""

    devices: int
    first_told_s: float
    last_told_s: float


@dataclass(frozen=True)
class Result:
    """What was measured, and a line through it."""

    date: str
    host: str
    runs: tuple[Run, ...]
    stop: Stop | None
    microseconds_per_message: float
    bytes_per_device: float


def main() -> None:
    """Run, print, and with --write keep the result."""
    parser = argparse.ArgumentParser(description="the fleet's controller at scale")
    parser.add_argument("--devices", default="1000,3000,10000", help="sizes, with commas")
    parser.add_argument("--no-stop", action="store_true", help="leave the emergency stop out")
    parser.add_argument(
        "--together", action="store_true", help="all sizes at once: sooner, and in each other's way"
    )
    parser.add_argument("--write", action="store_true", help="keep the result in benchmarks/results")
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.devices.split(",")]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    stopped = None if arguments.no_stop else max(sizes)
    with ThreadPoolExecutor(len(sizes) if arguments.together else 1) as pool:
        found = list(pool.map(lambda size: _measure(size, stop=size == stopped), sizes))
    result = _result([run for run, _ in found], next((stop for _, stop in found if stop), None))
    print(_as_markdown(result))
    if arguments.write:
        name = RESULTS / f"fleet-scale-{result.date}"
        name.with_suffix(".json").write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="utf-8")
        name.with_suffix(".md").write_text(_as_markdown(result), encoding="utf-8")
        _draw(result, name.with_suffix(".png"))


def _measure(size: int, *, stop: bool) -> tuple[Run, Stop | None]:
    with tempfile.TemporaryDirectory() as folder, _fleet(size, Path(folder)) as fleet:
        run = fleet.roll_out()
        print(run, flush=True)
        return run, fleet.emergency_stop() if stop else None


class _Fleet:
    """A broker, its devices and a registry of two releases."""

    def __init__(self, devices: int, folder: Path, port: int, simulator: subprocess.Popen[str]) -> None:
        self.devices, self.folder, self.port, self._simulator = devices, folder, port, simulator
        self.place = ["--store", str(folder / "store.sqlite"), "--broker", f"127.0.0.1:{port}"]

    def ask(self, word: str = "state") -> dict[str, Any]:
        """What the simulator knows; `mark` forgets when devices were told."""
        assert self._simulator.stdin is not None and self._simulator.stdout is not None
        self._simulator.stdin.write(f"{word}\n")
        self._simulator.stdin.flush()
        answer: dict[str, Any] = json.loads(self._simulator.stdout.readline())
        return answer

    def roll_out(self) -> Run:
        """Roll net:1.1.0 out to all devices and wait for its end."""
        before, began = self.ask(), time.monotonic()
        controller = self.start("there", "1.1.0", ["10%", "rest"], 0.1)
        _, status, usage = os.wait4(controller.pid, 0)
        after, completed_s = self.ask(), time.monotonic() - began
        if os.waitstatus_to_exitcode(status) != 0:
            raise SystemExit(
                f"the rollout did not succeed: {(self.folder / 'there.log').read_text()[-2000:]}"
            )
        assert (
            sum(n for digest, n in after["running"].items() if digest == self.digest("1.1.0")) == self.devices
        )
        return Run(
            devices=self.devices,
            # What is retained of each device comes first: its report and its status.
            messages=2 * self.devices + after["published"] - before["published"],
            processor_s=usage.ru_utime + usage.ru_stime,
            peak_memory_bytes=usage.ru_maxrss * 1024,
            completed_s=completed_s,
            store_bytes=(self.folder / "store.sqlite").stat().st_size,
        )

    def emergency_stop(self) -> Stop:
        """Roll net:1.0.0 out to all at once, and abort while it is observed."""
        controller = self.start("back", "1.0.0", ["rest"], 0.99)
        end = time.monotonic() + TIMEOUT_S
        while self.ask()["running"].get(self.digest("1.0.0"), 0) < self.devices:
            if time.monotonic() > end or controller.poll() is not None:
                raise SystemExit((self.folder / "back.log").read_text()[-2000:])
            time.sleep(1.0)
        self.ask("mark")
        asked_s = time.time()
        subprocess.run(self.command("abort", "back", *self.place), check=True, stdout=subprocess.DEVNULL)
        while (answer := self.ask())["told"] < self.devices and time.monotonic() < end:
            time.sleep(0.5)
        assert answer["told"] == self.devices, answer
        controller.wait(TIMEOUT_S)
        return Stop(self.devices, answer["told_first_s"] - asked_s, answer["told_last_s"] - asked_s)

    def start(
        self, name: str, version: str, waves: list[int | str], max_unavailable: float
    ) -> subprocess.Popen[bytes]:
        """The real command, as a process of its own."""
        spec = {
            "name": name,
            "fleet": FLEET,
            "release": f"net:{version}",
            "registry": str(self.folder / "registry"),
            "waves": waves,
            "gates": GATES,
            "max_unavailable": max_unavailable,
            "paced_by_evidence": False,  # what is measured is the cost of messages, as many as can be
        }
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(spec), encoding="utf-8")
        with (self.folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                self.command("start", str(path), *self.place), stdout=subprocess.DEVNULL, stderr=log
            )

    def digest(self, version: str) -> str:
        return _release(self.folder / "registry", version).digest

    @staticmethod
    def command(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "edgewright_cli.main", "fleet", "rollout", *arguments]


@contextlib.contextmanager
def _fleet(devices: int, folder: Path) -> Iterator[_Fleet]:
    registry = Layout.create(folder / "registry")
    for version in ("1.0.0", "1.1.0"):
        marks = {PROFILE_KEY: PROFILE, FORMAT: "onnx"}
        publish(registry, "net", version, [registry.put(f"net {version}".encode(), MANIFEST_TYPE, marks)])
    with _mosquitto(folder) as port:
        arguments = [
            str(devices),
            str(port),
            str(PERIOD_S),
            to_json(_release(registry.root, "1.0.0")).decode(),
        ]
        simulator = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.fleet.devices", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            fleet = _Fleet(devices, folder, port, simulator)
            while fleet.ask()["connected"] < devices:
                time.sleep(0.5)
            yield fleet
        finally:
            simulator.terminate()
            simulator.wait()


@contextlib.contextmanager
def _mosquitto(folder: Path) -> Iterator[int]:
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        raise SystemExit("mosquitto is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 100000\n")
    process = subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
                break
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


def _release(registry: Path, version: str) -> ReleaseReference:
    digest = Layout.open(registry).names()[f"net:{version}"].digest
    return ReleaseReference(name="net", version=version, digest=digest)


def _result(runs: list[Run], stop: Stop | None) -> Result:
    def slope(x: list[float], y: list[float]) -> float:
        return float(np.polyfit(x, y, 1)[0]) if len(x) > 1 else y[0] / x[0]

    return Result(
        date=datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat(),
        host=f"{platform.machine()}, {os.cpu_count()} cores shared with the broker and the devices, load average "
        f"{os.getloadavg()[1]:.0f}, Python {platform.python_version()}",
        runs=tuple(runs),
        stop=stop,
        microseconds_per_message=1e6
        * slope([float(run.messages) for run in runs], [run.processor_s for run in runs]),
        bytes_per_device=slope(
            [float(run.devices) for run in runs], [float(run.peak_memory_bytes) for run in runs]
        ),
    )


def _as_markdown(result: Result) -> str:
    lines = [
        f"# The fleet's controller at scale, {result.date}",
        "",
        f"`python -m benchmarks.fleet.scale --write`; measured on {result.host}.",
        "",
        "| devices | messages | processor time, s | µs a message, start included | peak memory, MB | "
        "rolled out to all in, s | store, MB |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {r.devices:,} | {r.messages:,} | {r.processor_s:.2f} | {1e6 * r.processor_s / r.messages:.0f} | "
        f"{r.peak_memory_bytes / 1e6:.0f} | {r.completed_s:.0f} | {r.store_bytes / 1e6:.1f} |"
        for r in result.runs
    ]
    each, size = result.microseconds_per_message, result.bytes_per_device
    lines += [
        "",
        f"A line through them: **{each:.1f} µs of processor time a message** (receiving, decoding, the engine, "
        f"the store) and **{size / 1e3:.2f} kB of memory a device**.",
    ]
    if result.stop is not None:
        lines += [
            "",
            f"Emergency stop of a rollout that {result.stop.devices:,} devices run: from the command's start the "
            f"first device was told after {result.stop.first_told_s:.2f} s and the last after "
            f"{result.stop.last_told_s:.2f} s (wall clock).",
        ]
    rate = 1e6 / PERIOD_S
    lines += [
        "",
        "## A million devices, by this arithmetic (not measured)",
        "",
        f"- Telemetry every {PERIOD_S:g} s: 1,000,000 / {PERIOD_S:g} = {rate:,.0f} messages a second.",
        f"- Processor: {rate:,.0f} × {each:.1f} µs = {rate * each / 1e6:.2f} cores. One Python process has one: "
        f"the fleet is split by name into {int(np.ceil(rate * each / 1e6 / 0.7))} controllers at 70 % of one.",
        f"- Memory: 1,000,000 × {size / 1e3:.2f} kB = {1e6 * size / 1e9:.1f} GB over all of them.",
        f"- Bytes: {rate:,.0f} × 0.75 kB = {rate * 0.75e3 / 1e6:.1f} MB/s of payload into the controllers.",
    ]
    return "\n".join(lines) + "\n"


def _draw(result: Result, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    left.plot([r.messages for r in result.runs], [r.processor_s for r in result.runs], "o-")
    left.set(
        xlabel="messages",
        ylabel="processor time, s",
        title=f"{result.microseconds_per_message:.1f} µs a message",
    )
    right.plot([r.devices for r in result.runs], [r.peak_memory_bytes / 1e6 for r in result.runs], "o-")
    right.set(
        xlabel="devices", ylabel="peak memory, MB", title=f"{result.bytes_per_device / 1e3:.2f} kB a device"
    )
    for axis in (left, right):
        axis.set_xlim(0)
        axis.set_ylim(0)
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
