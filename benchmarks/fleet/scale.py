"""The controller at scale: `python -m benchmarks.fleet.scale [--devices 1000,3000,10000] [--write]`.

For each size, simulated devices connect to a mosquitto of the benchmark's own and report telemetry every 60 s, and
the real command rolls a release out to all of them. An *event* is a message about a device that reaches the
controller: a report, a presence, a window of telemetry. Start-up (Python, imports, what is retained of each
device: two messages) ends when the rollout is in its store; from there to the end of the rollout is the steady
part. Beside the controller a hub, the real command too, keeps all telemetry, and two subscribers hear the same
messages and do nothing, paho's client and the fleet's own: the floor. A line through the sizes gives the cost of
one event and of one device, without what a process costs by the second. Then, at the largest size, a second
rollout is aborted when all devices run it, and the devices' own clocks say when each was told to go back.

Processor time and not the wall clock, as other programs may run beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.fleet.devices import FLEET, PROFILE
from benchmarks.fleet.processes import processor_s, running_hub
from benchmarks.fleet.scale_report import PERIOD_S, Run, Stop, as_markdown, draw, result_of
from benchmarks.mosquitto import Mosquitto
from edgewright.artifact.layout import MANIFEST_TYPE, Layout
from edgewright.artifact.release import FORMAT, publish
from edgewright.artifact.release import PROFILE as PROFILE_KEY
from edgewright.contract import to_json
from edgewright.twin import ReleaseReference

TIMEOUT_S = 900.0
RESULTS = Path(__file__).parents[1] / "results"
FLOORS = ("paho", "batch")


@dataclass(frozen=True)
class Pace:
    """How fast the devices and the gates are, seconds."""

    period_s: float = PERIOD_S
    window_s: float = 30.0
    max_unavailable: float = 0.1


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
        found = list(pool.map(lambda size: measured(size, Pace(), stop=size == stopped), sizes))
    result = result_of([run for run, _ in found], next((stop for _, stop in found if stop), None))
    print(as_markdown(result))
    if arguments.write:
        name = RESULTS / f"fleet-scale-{result.date}"
        name.with_suffix(".json").write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="utf-8")
        name.with_suffix(".md").write_text(as_markdown(result), encoding="utf-8")
        draw(result, name.with_suffix(".png"))
    sys.exit(int(result.line is not None and not result.line.within_limits))


def measured(size: int, pace: Pace, *, stop: bool) -> tuple[Run, Stop | None]:
    """One fleet of so many devices."""
    with tempfile.TemporaryDirectory() as folder, _fleet(size, pace, Path(folder)) as fleet:
        run = fleet.roll_out()
        print(run, file=sys.stderr, flush=True)
        return run, fleet.emergency_stop() if stop else None


class _Fleet:
    """A broker, its devices and a registry of two releases."""

    def __init__(
        self,
        devices: int,
        pace: Pace,
        folder: Path,
        broker: Mosquitto,
        simulator: subprocess.Popen[str],
        hub: subprocess.Popen[bytes],
    ) -> None:
        self.devices, self.pace, self.folder = devices, pace, folder
        self.broker, self._simulator, self._hub = broker, simulator, hub
        self.place = ["--store", str(folder / "store.sqlite"), "--broker", str(broker.settings)]

    def ask(self, word: str = "state") -> dict[str, Any]:
        """What the simulator knows; `mark` forgets when devices were told."""
        assert self._simulator.stdin is not None and self._simulator.stdout is not None
        self._simulator.stdin.write(f"{word}\n")
        self._simulator.stdin.flush()
        answer: dict[str, Any] = json.loads(self._simulator.stdout.readline())
        return answer

    def roll_out(self) -> Run:
        """Roll net:1.1.0 out to all devices and wait for its end."""
        with contextlib.ExitStack() as stack:
            floors = {kind: stack.enter_context(_bare(self.broker, kind)) for kind in FLOORS}
            before, broker_s, began = self.ask(), processor_s(self.broker.process.pid), time.monotonic()
            hub_s = processor_s(self._hub.pid)
            controller = self.start("there", "1.1.0", ["10%", "rest"], self.pace.max_unavailable)
            start_s, begun = self._begun(controller), self.ask()
            _, status, usage = os.wait4(controller.pid, 0)
            after, completed_s = self.ask(), time.monotonic() - began
            if os.waitstatus_to_exitcode(status) != 0:
                problem = (self.folder / "there.log").read_text()[-2000:]
                raise SystemExit(f"the rollout did not succeed: {problem}")
            assert after["running"].get(self.digest("1.1.0")) == self.devices
            broker_s = processor_s(self.broker.process.pid) - broker_s
            hub_s = processor_s(self._hub.pid) - hub_s
            assert self._known_to_the_hub() == self.devices
            floor_us = {kind: _floor_us(process) for kind, process in floors.items()}
        published = after["published"] - before["published"]
        return Run(
            devices=self.devices,
            start_s=start_s,
            events=after["published"] - begun["published"],
            steady_s=usage.ru_utime + usage.ru_stime - start_s,
            peak_memory_bytes=usage.ru_maxrss * 1024,
            completed_s=completed_s,
            store_bytes=(self.folder / "store.sqlite").stat().st_size,
            broker_s=broker_s,
            # Each in, and out to the controller, the hub and the floors; what is retained to the controller.
            broker_packets=published * (3 + len(FLOORS)) + 2 * self.devices,
            floor_us=floor_us,
            hub_us=1e6 * hub_s / published,
            event_bytes=(after["bytes"] - before["bytes"]) / published,
        )

    def _known_to_the_hub(self) -> int:
        """Devices that are online for it and have sent it telemetry."""
        query = "SELECT count(*) FROM device WHERE online AND id IN (SELECT device FROM window)"
        with contextlib.closing(sqlite3.connect(self.folder / "hub.sqlite")) as database:
            return int(database.execute(query).fetchone()[0])

    def _begun(self, controller: subprocess.Popen[bytes]) -> float:
        """The controller's processor time when the rollout is in its store."""
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end and controller.poll() is None:
            with contextlib.suppress(sqlite3.Error):
                store = f"file:{self.folder / 'store.sqlite'}?mode=ro"
                with contextlib.closing(sqlite3.connect(store, uri=True)) as database:
                    if database.execute("SELECT 1 FROM rollout").fetchone():
                        return processor_s(controller.pid)
            time.sleep(0.05)
        raise SystemExit((self.folder / "there.log").read_text()[-2000:])

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
            "gates": {"min_inferences": 50, "window_s": self.pace.window_s, "timeout_s": 600},
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
def _fleet(devices: int, pace: Pace, folder: Path) -> Iterator[_Fleet]:
    registry = Layout.create(folder / "registry")
    for version in ("1.0.0", "1.1.0"):
        marks = {PROFILE_KEY: PROFILE, FORMAT: "onnx"}
        publish(registry, "net", version, [registry.put(f"net {version}".encode(), MANIFEST_TYPE, marks)])
    release = to_json(_release(registry.root, "1.0.0")).decode()
    with (
        Mosquitto(folder, "max_queued_messages 100000\n") as broker,
        running_hub(FLEET, broker.settings, folder / "hub.sqlite") as hub,
        _child("devices", str(devices), str(broker.settings.port), str(pace.period_s), release) as simulator,
    ):
        fleet = _Fleet(devices, pace, folder, broker, simulator, hub)
        while fleet.ask()["connected"] < devices:
            time.sleep(0.5)
        yield fleet


@contextlib.contextmanager
def _bare(broker: Mosquitto, kind: str) -> Iterator[subprocess.Popen[str]]:
    with _child("bare", str(broker.settings.port), kind) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process


def _floor_us(process: subprocess.Popen[str]) -> float:
    answer = json.loads(process.communicate()[0])
    return 1e6 * float(answer["processor_s"]) / int(answer["messages"])


@contextlib.contextmanager
def _child(module: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.fleet.{module}", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _release(registry: Path, version: str) -> ReleaseReference:
    digest = Layout.open(registry).names()[f"net:{version}"].digest
    return ReleaseReference(name="net", version=version, digest=digest)


if __name__ == "__main__":
    main()
