"""The OpenTelemetry SDK, set up to record what the agent records, and what it would cost in memory and bytes.

The agent does not use it; `telemetry` measures the two side by side, and a test holds their data points equal.
"""

from __future__ import annotations

import random
import subprocess
import sys
from importlib.metadata import files
from statistics import median

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation
from opentelemetry.sdk.resources import Resource

from edgewright.telemetry import names
from edgewright.telemetry.otlp import from_bytes, to_bytes
from edgewright.twin import ReleaseReference
from edgewright_agent.exporter import MAX_BUCKETS, SCALE, Exporter, model_attributes

PACKAGES = tuple(
    f"opentelemetry-{part}" for part in ("api", "sdk", "semantic-conventions", "exporter-otlp-proto-common")
)
"""What the SDK would put on a device beside what the agent needs anyway."""
STAGES = ("run", "queue", "preprocessing", "postprocessing")
Stages = tuple[float, float, float, float]
"""Seconds of each."""


class SdkHistograms:
    """A meter with exponential histograms as the agent sends them: a delta, 40 buckets, no finer than ours."""

    def __init__(self) -> None:
        aggregation = ExponentialBucketHistogramAggregation(
            max_size=MAX_BUCKETS, max_scale=SCALE, record_min_max=False
        )
        self.reader = InMemoryMetricReader(
            preferred_temporality={Histogram: AggregationTemporality.DELTA},
            preferred_aggregation={Histogram: aggregation},
        )
        provider = MeterProvider([self.reader], Resource({}), shutdown_on_exit=False)
        self._meter = provider.get_meter("edgewright")
        self._one = self._meter.create_histogram(names.INFERENCE_DURATION, "s")
        self._attributes = [{names.STAGE: stage} for stage in STAGES]
        self._each = [
            self._meter.create_histogram(f"{names.INFERENCE_DURATION}.{stage}", "s") for stage in STAGES
        ]

    def by_attribute(self, stages: Stages) -> None:
        for seconds, attributes in zip(stages, self._attributes, strict=True):
            self._one.record(seconds, attributes)

    def by_instrument(self, stages: Stages) -> None:
        for seconds, histogram in zip(stages, self._each, strict=True):
            histogram.record(seconds)

    def message(self) -> MetricsData:
        data = self.reader.get_metrics_data()
        assert data is not None
        message = MetricsData()
        message.ParseFromString(encode_metrics(data).SerializeToString())
        return message


MEMORY = """
import os
from benchmarks.agent.running_agent import memory_bytes
from edgewright_agent.heap import share_one_heap
share_one_heap()
import onnxruntime, edgewright_cli.agent, edgewright_agent.agent, edgewright_agent.serving.listeners
before = memory_bytes(os.getpid())[0]
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation
from opentelemetry.sdk.resources import Resource
reader = InMemoryMetricReader(
    preferred_temporality={Histogram: AggregationTemporality.DELTA},
    preferred_aggregation={Histogram: ExponentialBucketHistogramAggregation(max_size=40, max_scale=5)},
)
histogram = MeterProvider([reader], Resource({})).get_meter("m").create_histogram("h", "s")
for n in range(2000):
    for stage in ("run", "queue", "preprocessing", "postprocessing"):
        histogram.record(1e-3 + n * 1e-6, {"stage": stage})
encode_metrics(reader.get_metrics_data()).SerializeToString()
print(memory_bytes(os.getpid())[0] - before)
"""


def sdk_memory_bytes() -> int:
    """What the SDK adds to the resident memory of a process that has imported the agent; a median of five."""
    command = [sys.executable, "-c", MEMORY]
    return int(median(int(subprocess.check_output(command)) for _ in range(5)))


def sdk_installed_bytes() -> int:
    """Of the files of the packages that the SDK needs beside the agent's."""
    return sum(file.size or 0 for package in PACKAGES for file in files(package) or ())


def durations(chance: random.Random) -> Stages:
    """(run, queue, preprocessing, postprocessing) in seconds; one run in two hundred takes five times as long."""
    slow = 5 if chance.random() < 0.005 else 1
    return (
        chance.lognormvariate(-4, 0.1) * slow,
        chance.expovariate(1000),
        chance.lognormvariate(-6, 0.1),
        chance.lognormvariate(-8, 0.1),
    )


def histogram_bytes(inferences: int) -> tuple[int, int]:
    """(ours, the SDK's) of a payload with nothing but the four histograms of a minute."""
    chance, release = random.Random(0), ReleaseReference(name="m", version="1", digest=f"sha256:{'0' * 64}")
    exporter = Exporter(fleet="f", device="d", profile="p", boot="0")
    sdk = SdkHistograms()
    for _ in range(inferences):
        run, queue, before, after = stages = durations(chance)
        exporter.record(
            model_attributes(release), run, queue_s=queue, preprocessing_s=before, postprocessing_s=after
        )
        sdk.by_attribute(stages)
    ours = from_bytes(exporter.collect())
    del ours.resource_metrics[0].resource.attributes[:]
    for scope in ours.resource_metrics[0].scope_metrics:
        del scope.scope.attributes[:]
    del ours.resource_metrics[0].scope_metrics[1:]
    return len(to_bytes(ours, "protobuf")), len(to_bytes(sdk.message(), "protobuf"))
