"""What telemetry costs: processor time to record an inference, beside the OpenTelemetry SDK's, and its bytes.

    python -m benchmarks.agent.telemetry

Processor time of the calling thread, so that other programs on the host matter little; the two record the same
durations by turns. The payload is of a minute of a device: every attribute, four stages, vitals and energy.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation

from edgewright.telemetry import names
from edgewright.twin import ReleaseReference
from edgewright_agent.exporter import Exporter, model_attributes
from edgewright_agent.vitals import Vitals

RUNS = 50_000


def _durations(chance: random.Random) -> tuple[float, float, float, float]:
    """(run, queue, preprocessing, postprocessing) in seconds; one run in two hundred takes five times as long."""
    slow = 5 if chance.random() < 0.005 else 1
    return (
        chance.lognormvariate(-4, 0.1) * slow,
        chance.expovariate(1000),
        chance.lognormvariate(-6, 0.1),
        chance.lognormvariate(-8, 0.1),
    )


def _exporter(chance: random.Random) -> tuple[Exporter, ReleaseReference]:
    boot, digest = chance.randbytes(16).hex(), chance.randbytes(32).hex()
    exporter = Exporter(fleet="plant-north", device="line-3-camera-12", profile="raspberry-pi-5", boot=boot)
    return exporter, ReleaseReference(name="sorter", version="1.4.0", digest=f"sha256:{digest}")


def _cost_ns(call: Callable[[], None]) -> int:
    start = time.thread_time_ns()
    call()
    return time.thread_time_ns() - start


def _recording(chance: random.Random) -> None:
    exporter, release = _exporter(chance)
    model = model_attributes(release)
    reader = InMemoryMetricReader(
        preferred_temporality={Histogram: AggregationTemporality.DELTA},
        preferred_aggregation={Histogram: ExponentialBucketHistogramAggregation()},
    )
    provider = MeterProvider([reader], shutdown_on_exit=False)
    histogram = provider.get_meter("benchmark").create_histogram(names.INFERENCE_DURATION, "s")
    attributes = {names.MODEL_NAME: model.name, names.RELEASE_DIGEST: model.digest, names.STAGE: "run"}
    costs: dict[str, list[int]] = {"all four stages": [], "OpenTelemetry SDK, one stage": [], "the clock": []}
    for _ in range(RUNS):
        run, queue, before, after = _durations(chance)

        def ours(
            run: float = run, queue: float = queue, before: float = before, after: float = after
        ) -> None:
            exporter.record(model, run, queue_s=queue, preprocessing_s=before, postprocessing_s=after)

        def sdk(run: float = run) -> None:
            histogram.record(run, attributes)

        for name, call in zip(costs, (ours, sdk, lambda: None), strict=True):
            costs[name].append(_cost_ns(call))
    for name, values in costs.items():
        values.sort()
        p50, p99 = values[RUNS // 2] / 1e3, values[RUNS * 99 // 100] / 1e3
        print(f"{name:30} p50 {p50:6.2f} µs   p99 {p99:6.2f} µs")
    provider.shutdown()


def _payload_bytes(chance: random.Random, inferences: int) -> int:
    exporter, release = _exporter(chance)
    exporter.payloads = 40_000
    vitals = Vitals(Path())
    for _ in range(inferences):
        run, queue, before, after = _durations(chance)
        exporter.record(
            model_attributes(release), run, queue_s=queue, preprocessing_s=before, postprocessing_s=after
        )
    exporter.record_error(model_attributes(release), ValueError())
    exporter.record_energy(123.456, "rapl package")
    vitals.record(exporter)
    return len(exporter.collect())


def main() -> None:
    """Measure and print."""
    chance = random.Random(0)
    _recording(chance)
    for inferences in (60, 600, 6000):
        size = _payload_bytes(chance, inferences)
        print(
            f"{inferences:5} inferences in a minute: {size} bytes a payload, {size * 60 / 1e3:.1f} kB an hour"
        )


if __name__ == "__main__":
    main()
