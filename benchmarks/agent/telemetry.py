"""What telemetry costs on a device: the agent's buffer before the SDK, beside the SDK on the hot path.

    python -m benchmarks.agent.telemetry            # a minute and a half
    python -m benchmarks.agent.telemetry --write    # and keeps the table in results/agent-telemetry-DATE.md

The agent's own loop runs inferences of four stages at full speed, and whoever records takes turns of seconds, so
that what one leaves to another thread is paid in its own turn. Bytes are of the same recordings, deflated alike.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData

from benchmarks.agent.inference_cost import WARM, clock, draining, loaded
from benchmarks.agent.results import Host
from edgewright.telemetry.otlp import from_bytes, to_bytes
from edgewright.twin import ReleaseReference
from edgewright_agent.exporter import Exporter, model_attributes
from edgewright_agent.inference import infer
from edgewright_agent.vitals import Vitals

RESULTS = Path(__file__).parents[1] / "results"
BLOCKS, BLOCK_S = 8, 3.0


class Buffered(Exporter):
    """The agent's exporter, told all four stages of every inference."""

    def record(self, model: Any, run_s: float, *, queue_s: float | None = None, **_: Any) -> None:
        super().record(
            model, run_s, queue_s=queue_s, preprocessing_s=0.4 * run_s, postprocessing_s=0.1 * run_s
        )


class OnTheHotPath(Buffered):
    """Nothing waits: the thread that inferred gives its durations to the SDK."""

    def record(self, model: Any, run_s: float, *, queue_s: float | None = None, **_: Any) -> None:
        super().record(model, run_s, queue_s=queue_s)
        self._aggregate_oldest()


class Burst(Buffered):
    """What waits is given to the SDK once a period without a pause."""

    def drain(self) -> None:
        for _ in range(len(self._waiting)):
            self._aggregate_oldest()


class Silent(Exporter):
    """Nothing is recorded."""

    def record(self, *_: Any, **__: Any) -> None:
        pass


WAYS: dict[str, type[Exporter]] = {
    "nothing": Silent,
    "the agent: a buffer, drained with pauses": Buffered,
    "the same buffer, drained in bursts": Burst,
    "the SDK on the hot path": OnTheHotPath,
}


@dataclass(frozen=True)
class Cost:
    """Microseconds of each inference: its time outside the runtime, and all of it."""

    own_us: Sequence[float]
    whole_us: Sequence[float]
    processor_us: float
    """The mean of a whole inference, of all threads."""

    def own(self, share: float) -> float:
        return float(np.percentile(self.own_us, share))

    def whole(self, share: float) -> float:
        return float(np.percentile(self.whole_us, share))


def made(way: type[Exporter]) -> Exporter:
    boot = random.Random(0).randbytes(16).hex()
    return way(fleet="plant-north", device="line-3-camera-12", profile="raspberry-pi-5", boot=boot)


def costs(folder: Path, blocks: int, block_s: float) -> dict[str, Cost]:
    """Each way to record."""
    served, feed = loaded(folder)
    clocked = clock(served)
    own: dict[str, list[float]] = {name: [] for name in WAYS}
    whole: dict[str, list[float]] = {name: [] for name in WAYS}
    processor = dict.fromkeys(WAYS, 0.0)
    for _ in range(blocks):
        for name, way in WAYS.items():
            exporter = made(way)
            with draining(exporter):
                for _ in range(WARM):
                    infer(served, exporter, feed)
                begun, end = time.process_time(), time.monotonic() + block_s
                while time.monotonic() < end:
                    started = time.perf_counter()
                    infer(served, exporter, feed)
                    taken = time.perf_counter() - started
                    own[name].append((taken - clocked.seconds) * 1e6)
                    whole[name].append(taken * 1e6)
                processor[name] += time.process_time() - begun
    assert served.tally.errors == 0
    return {name: Cost(own[name], whole[name], processor[name] * 1e6 / len(own[name])) for name in WAYS}


def recorded(inferences: int) -> Exporter:
    """A minute of a device: every attribute, four stages, vitals and energy."""
    chance = random.Random(0)
    exporter = made(Exporter)
    model = model_attributes(
        ReleaseReference(name="sorter", version="1.4.0", digest=f"sha256:{chance.randbytes(32).hex()}")
    )
    exporter.payloads = 40_000
    for _ in range(inferences):
        exporter.record(
            model,
            chance.lognormvariate(-4, 0.1) * (5 if chance.random() < 0.005 else 1),
            queue_s=chance.expovariate(1000),
            preprocessing_s=chance.lognormvariate(-6, 0.1),
            postprocessing_s=chance.lognormvariate(-8, 0.1),
        )
    exporter.record_error(model, ValueError())
    exporter.record_energy(123.456, "rapl package")
    Vitals(Path()).record(exporter)
    return exporter


def payload_bytes(inferences: int) -> tuple[int, int]:
    """(the agent's, the SDK's own encoder's) of the same minute."""
    payload = recorded(inferences).collect()
    exporter = recorded(inferences)
    exporter.drain()
    data = vars(exporter)["_reader"].get_metrics_data()
    message = MetricsData.FromString(encode_metrics(data).SerializeToString())
    who = from_bytes(payload).resource_metrics[0].resource
    message.resource_metrics[0].resource.CopyFrom(who)
    return len(payload), len(to_bytes(message, "protobuf"))


def report(found: dict[str, Cost], host: Host) -> str:
    """What was measured, as Markdown."""
    rows = "\n".join(
        f"| {name} | {cost.own(50):.1f} | {cost.own(99):.1f} | {cost.own(99.9):.0f} | {cost.whole(50):.0f} "
        f"| {cost.whole(99):.0f} | {cost.whole(99.9):.0f} | {cost.processor_us:.0f} |"
        for name, cost in found.items()
    )
    payloads = ", ".join("{:,} and {:,}".format(*payload_bytes(n)) for n in (60, 600, 6000))
    load = ", ".join(f"{load:.2f}" for load in host.load_at_start)
    return f"""# What telemetry costs a device, {datetime.now(timezone.utc):%Y-%m-%d}

`python -m benchmarks.agent.telemetry`. Measured on host: {host.processor}, {host.cores} cores,
Python {host.python}, ONNX Runtime {host.onnxruntime}, opentelemetry-sdk {version("opentelemetry-sdk")};
load average at the start {load}.

Inferences at full speed, four stages recorded, by turns of {BLOCK_S:g} s, in µs; the processor's of all
threads, an inference (limit of the time outside the runtime: p50 30, p99 100):

| recorded by | outside the runtime p50 | p99 | p99.9 | whole inference p50 | p99 | p99.9 | processor |
| --- | --- | --- | --- | --- | --- | --- | --- |
{rows}

- Bytes of a payload of 60, 600 and 6,000 inferences, the agent's and the SDK's own encoder's: {payloads}.
  1,000 make 60 kB an hour at one a minute.
"""


@click.command()
@click.option("--write", is_flag=True, help="Keep the table in benchmarks/results.")
@click.option("--quick", is_flag=True, help="Prove that all works; the figures mean little.")
def main(write: bool, quick: bool) -> None:
    """Measure what recording and sending telemetry costs."""
    host = Host.here()
    with tempfile.TemporaryDirectory(prefix="edgewright-telemetry-") as folder:
        found = costs(Path(folder), *((1, 0.2) if quick else (BLOCKS, BLOCK_S)))
    text = report(found, host)
    print(text)
    if write:
        RESULTS.joinpath(f"agent-telemetry-{datetime.now(timezone.utc):%Y-%m-%d}.md").write_text(text)


if __name__ == "__main__":
    main()
