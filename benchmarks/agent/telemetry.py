"""What telemetry costs on a device, recorded by the agent and, in the same run, by the OpenTelemetry SDK.

    python -m benchmarks.agent.telemetry            # a minute and a half
    python -m benchmarks.agent.telemetry --write    # and keeps the table in results/agent-telemetry-DATE.md

The agent's own loop runs inferences of four stages, and whoever records takes turns call by call. The SDK fed off
the hot path gets what was appended to a list, once a second, in a thread of its own. Memory is that of a process
that has all imported that an agent imports; bytes are of the same recordings, deflated alike.
"""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.agent.inference_cost import WARM, clock, loaded
from benchmarks.agent.opentelemetry_sdk import (
    SdkHistograms,
    Stages,
    durations,
    histogram_bytes,
    sdk_installed_bytes,
    sdk_memory_bytes,
)
from benchmarks.agent.results import Host
from edgewright.twin import ReleaseReference
from edgewright_agent.exporter import Exporter, model_attributes
from edgewright_agent.inference import infer
from edgewright_agent.vitals import Vitals

RESULTS = Path(__file__).parents[1] / "results"
DRAIN_PERIOD_S = 1.0
BLOCKS, BLOCK_S = 4, 4.0


class _Recording(Exporter):
    """In the exporter's place: all four stages of every inference, to whoever is measured."""

    def __init__(self, record: Callable[[Stages], None] | None = None) -> None:
        super().__init__(fleet="plant", device="line-3", profile="raspberry-pi-5", boot="0")
        self._elsewhere = record

    def record(self, model: Any, run_s: float, *, queue_s: float | None = None, **_: Any) -> None:
        stages = (run_s, queue_s or 0.0, 0.4 * run_s, 0.1 * run_s)
        if self._elsewhere is not None:
            self._elsewhere(stages)
            return
        run, queue, before, after = stages
        super().record(model, run, queue_s=queue, preprocessing_s=before, postprocessing_s=after)


class _Drained:
    """The SDK fed once a second with what the loop left in a list."""

    def __init__(self) -> None:
        self._sdk, self._waiting, self._stopping = SdkHistograms(), list[Stages](), threading.Event()
        self._thread = threading.Thread(target=self._drain)

    def __enter__(self) -> Callable[[Stages], None]:
        self._thread.start()
        return lambda stages: self._waiting.append(stages)

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _drain(self) -> None:
        while not self._stopping.wait(DRAIN_PERIOD_S):
            self._take()
        self._take()

    def _take(self) -> None:
        waiting, self._waiting = self._waiting, []
        for stages in waiting:
            self._sdk.by_attribute(stages)


@dataclass(frozen=True)
class Cost:
    """Microseconds of an inference outside the runtime, and of all of it at the far end of the tail."""

    own_us: Sequence[float]
    whole_us: Sequence[float]
    processor_us: float | None = None
    """A whole inference's, of all threads."""

    def own(self, share: float) -> float:
        return float(np.percentile(self.own_us, share))

    def whole(self, share: float) -> float:
        return float(np.percentile(self.whole_us, share))


def costs(folder: Path, calls: int, block_s: float) -> dict[str, Cost]:
    """Each way to record, by turns call by call; the two of the last rows by turns of seconds."""
    served, feed = loaded(folder)
    clocked = clock(served)

    def one(exporter: Exporter) -> tuple[float, float]:
        begun = time.perf_counter()
        infer(served, exporter, feed)
        whole = time.perf_counter() - begun
        return (whole - clocked.seconds) * 1e6, whole * 1e6

    ways = {
        "the agent's own": _Recording(),
        "SDK, the stage an attribute": _Recording(SdkHistograms().by_attribute),
        "SDK, an instrument a stage": _Recording(SdkHistograms().by_instrument),
    }
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(WARM + calls):
        for name, exporter in ways.items():
            seen[name].append(one(exporter))
    found = {
        name: Cost([own for own, _ in rows[WARM:]], [whole for _, whole in rows[WARM:]])
        for name, rows in seen.items()
    }
    blocks: dict[str, list[tuple[float, float]]] = {"own": [], "drained": []}
    used = dict.fromkeys(blocks, 0.0)
    for _ in range(BLOCKS):
        for name in blocks:
            begun = time.process_time()
            with _Drained() as append:
                exporter = _Recording(None if name == "own" else append)
                end = time.monotonic() + block_s
                while time.monotonic() < end:
                    blocks[name].append(one(exporter))
            used[name] += time.process_time() - begun
    for name, title in (
        ("own", "the agent's own, at full speed"),
        ("drained", "SDK off the hot path, likewise"),
    ):
        rows = blocks[name]
        found[title] = Cost(
            [own for own, _ in rows], [whole for _, whole in rows], used[name] * 1e6 / len(rows)
        )
    return found


def payload_bytes(inferences: int) -> int:
    """A whole payload of a minute: every attribute, four stages, vitals and energy."""
    chance = random.Random(0)
    exporter = _device(chance)
    model = model_attributes(
        ReleaseReference(name="sorter", version="1.4.0", digest=f"sha256:{chance.randbytes(32).hex()}")
    )
    exporter.payloads = 40_000
    for _ in range(inferences):
        run, queue, before, after = durations(chance)
        exporter.record(model, run, queue_s=queue, preprocessing_s=before, postprocessing_s=after)
    exporter.record_error(model, ValueError())
    exporter.record_energy(123.456, "rapl package")
    Vitals(Path()).record(exporter)
    return len(exporter.collect())


def _device(chance: random.Random) -> Exporter:
    boot = chance.randbytes(16).hex()
    return Exporter(fleet="plant-north", device="line-3-camera-12", profile="raspberry-pi-5", boot=boot)


def report(found: dict[str, Cost], host: Host) -> str:
    """What was measured, as Markdown."""
    now = datetime.now(timezone.utc)
    by_turns = "\n".join(
        f"| {name} | {cost.own(50):.1f} | {cost.own(99):.1f} |"
        for name, cost in found.items()
        if cost.processor_us is None
    )
    at_full_speed = "\n".join(
        f"| {name} | {cost.own(50):.1f} | {cost.own(99):.1f} | {cost.whole(50):.0f} | {cost.whole(99):.0f} "
        f"| {cost.whole(99.9):.0f} | {cost.processor_us:.0f} |"
        for name, cost in found.items()
        if cost.processor_us is not None
    )
    bytes_of_histograms = ", ".join("{:,} and {:,}".format(*histogram_bytes(n)) for n in (60, 600, 6000))
    payloads = ", ".join(f"{payload_bytes(n)}" for n in (60, 600, 6000))
    load = ", ".join(f"{load:.2f}" for load in host.load_at_start)
    return f"""# What telemetry costs a device, {now:%Y-%m-%d}

`python -m benchmarks.agent.telemetry`. Measured on host: {host.processor}, {host.cores} cores,
Python {host.python}, ONNX Runtime {host.onnxruntime}, opentelemetry-sdk {version("opentelemetry-sdk")};
load average at the start {load}.

Time of one inference outside the runtime, four stages recorded; by turns call by call (limit: 30 and 100 µs):

| recorded by | p50, µs | p99, µs |
| --- | --- | --- |
{by_turns}

At full speed, by turns of {BLOCK_S:g} s; the SDK gets what the loop appended to a list, once a second in another
thread. In µs:

| recorded by | outside the runtime p50 | p99 | whole inference p50 | p99 | p99.9 | processor, an inference |
| --- | --- | --- | --- | --- | --- | --- |
{at_full_speed}

- Resident memory that the SDK with its OTLP encoder adds to a process that has imported the agent:
  {sdk_memory_bytes() / 1e6:.2f} MB; its packages are {sdk_installed_bytes() / 1e6:.1f} MB on the disk.
- Bytes of the four histograms alone, ours and the SDK's, for 60, 600 and 6,000 inferences a minute:
  {bytes_of_histograms}.
- Bytes of a whole payload of ours, for as many: {payloads}; 1,000 make 60 kB an hour at one a minute.
"""


@click.command()
@click.option("--write", is_flag=True, help="Keep the table in benchmarks/results.")
@click.option("--quick", is_flag=True, help="Prove that all works; the figures mean little.")
def main(write: bool, quick: bool) -> None:
    """Measure what recording and sending telemetry costs, beside the OpenTelemetry SDK."""
    host = Host.here()
    with tempfile.TemporaryDirectory(prefix="edgewright-telemetry-") as folder:
        found = costs(Path(folder), 300 if quick else 20_000, 0.2 if quick else BLOCK_S)
    text = report(found, host)
    print(text)
    if write:
        RESULTS.joinpath(f"agent-telemetry-{datetime.now(timezone.utc):%Y-%m-%d}.md").write_text(text)


if __name__ == "__main__":
    main()
