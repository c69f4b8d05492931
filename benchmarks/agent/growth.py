"""Whether a device's memory grows: a whole agent, while it makes a million inferences and a thousand updates.

It is the agent as it is: its threads, a real broker, the loop at full speed, a telemetry payload a second, and
updates that the fleet asks for, each downloaded, verified, proved, switched, watched and kept. Three things are
not as on a device: the proving process is forked from the agent rather than started anew, a release is watched for
hundredths of a second, and threads take turns ten times as often, so that the loop leaves the others time.
Resident memory is read after as much work to warm up, and at the end; nothing is trimmed.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click
import paho.mqtt.client as paho

import edgewright_agent.update
from benchmarks.agent.faulty_device import config_for, fork_proofs
from benchmarks.agent.running_agent import memory_bytes
from benchmarks.agent.toy_releases import toy_release
from benchmarks.mosquitto import Mosquitto
from edgewright.contract import from_json, to_json
from edgewright.mqtt import BrokerSettings, connect, disconnect, make_client
from edgewright.telemetry.window import decode_otlp
from edgewright.twin import DesiredState, ReleaseReference, ReportedState, topic
from edgewright_agent.agent import Agent
from edgewright_agent.feed_config import SourceConfig

WARM_SWITCHES = 100
UPDATE_S = 60.0
"""What an update may take before the benchmark gives up."""
SAMPLE_S = 1.0
SWITCH_INTERVAL_S = 0.5e-3
"""Between threads of Python, a tenth of the usual: an update would wait for the loop at each of its steps."""
RATE_HZ = 10_000.0
"""As many as a configuration may ask for."""


@dataclass(frozen=True)
class Moment:
    """What the device had done by then, and its resident memory."""

    seconds: float
    switches: int
    inferences: int
    rss_bytes: int


@dataclass(frozen=True)
class Growth:
    """From the end of the warming up to the end; the moments are for a picture."""

    start: Moment
    end: Moment
    moments: list[Moment] = field(repr=False)

    @property
    def grown_bytes(self) -> int:
        return self.end.rss_bytes - self.start.rss_bytes


class _Fleet:
    """What the fleet sees of the device: which release it keeps, and how many inferences it has reported."""

    def __init__(self, broker: BrokerSettings) -> None:
        self.inferences = 0
        self._reported = threading.Condition()
        self._last: ReportedState | None = None
        self._client = make_client(broker, "fleet")
        self._client.on_message = self._hear
        connect(self._client, broker)
        for leaf in ("reported", "metrics"):
            self._client.subscribe(topic("bench", "device", leaf), qos=1)

    def close(self) -> None:
        disconnect(self._client)

    def update(self, release: ReleaseReference, number: int) -> None:
        """Ask for a release, and return when the device keeps it."""
        wish = DesiredState(release=release, rollout=f"update-{number}", revert=True)
        self._client.publish(topic("bench", "device", "desired"), to_json(wish), qos=1, retain=True)
        with self._reported:
            if not self._reported.wait_for(lambda: self._is_over(wish.rollout), UPDATE_S):
                raise click.ClickException(f"update {number} has no end: {self._last}")
        assert self._last is not None
        if self._last.phase != "committed":
            raise click.ClickException(f"update {number} failed: {self._last.reason}")

    def _is_over(self, rollout: str | None) -> bool:
        last = self._last
        return last is not None and last.rollout == rollout and last.phase in ("committed", "failed")

    def _hear(self, client: paho.Client, userdata: object, message: paho.MQTTMessage) -> None:
        if message.topic.endswith("metrics"):
            self.inferences += sum(window.latency.count for window in decode_otlp(bytes(message.payload)))
            return
        with self._reported:
            self._last = from_json(ReportedState, bytes(message.payload), where=message.topic)
            self._reported.notify_all()


def growth(folder: Path, broker: Mosquitto, inferences: int, switches: int) -> Growth:
    """Let a device do so many more than it did to warm up, which is a tenth of the inferences."""
    registry = folder / "registry"
    releases = [toy_release(registry, version) for version in ("1.0.0", "1.1.0")]
    fleet = _Fleet(broker.settings)
    moments: list[Moment] = []
    begun = time.monotonic()

    def work(pid: int, until_switches: int, until_inferences: int) -> Moment:
        now = moments[-1] if moments else Moment(0.0, 0, 0, 0)
        number = now.switches
        while number < until_switches or fleet.inferences < until_inferences:
            if number < until_switches:
                number += 1
                fleet.update(releases[number % 2], number)
            else:
                time.sleep(SAMPLE_S / 10)
            seconds = time.monotonic() - begun
            if not moments or seconds - moments[-1].seconds >= SAMPLE_S:
                moments.append(Moment(seconds, number, fleet.inferences, memory_bytes(pid)[0]))
        moments.append(Moment(time.monotonic() - begun, number, fleet.inferences, memory_bytes(pid)[0]))
        return moments[-1]

    try:
        with _device(folder, broker) as pid:
            start = work(pid, min(switches, WARM_SWITCHES), inferences // 10)
            end = work(pid, start.switches + switches, start.inferences + inferences)
    finally:
        fleet.close()
    return Growth(start, end, moments)


@contextmanager
def _device(folder: Path, broker: Mosquitto) -> Iterator[int]:
    command = [sys.executable, "-m", "benchmarks.agent.growth", str(folder), str(broker.settings.port)]
    process = subprocess.Popen(command)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(UPDATE_S)


def run_device(folder: Path, port: int) -> None:
    """The agent, until SIGTERM."""
    fork_proofs()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    edgewright_agent.update.WATCH_POLL_S = 0.003
    changes = {
        "broker": BrokerSettings(port=port),
        "source": SourceConfig(rate_hz=RATE_HZ),
        "telemetry_period_s": 1.0,
        # A host with other work is slow at times, which is not what is asked here.
        "watch_max_slowdown": 0.0,
        "prove_max_p99_s": 10.0,
    }
    agent = Agent(config_for(folder / "state", folder / "registry").model_copy(update=changes))
    agent.stop_on_signals()
    agent.run()


if __name__ == "__main__":
    run_device(Path(sys.argv[1]), int(sys.argv[2]))
