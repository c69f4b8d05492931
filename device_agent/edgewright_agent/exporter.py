"""`Exporter`: what the device measured since the last report, as one OTLP payload.

Metrics are kept by the OpenTelemetry SDK with delta temporality: each payload is a window of its own, and the
receiver merges windows. Recording a duration allocates nothing but the SDK's own measurement.
"""

from __future__ import annotations

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation
from opentelemetry.sdk.resources import Resource

from edgewright.telemetry import names
from edgewright.twin import ReleaseReference

ERROR_TYPE = "error.type"


Attributes = dict[str, str]


def model_attributes(release: ReleaseReference) -> Attributes:
    """The attributes of every data point of a served release; built once, when it is loaded."""
    return {
        names.MODEL_NAME: release.name,
        names.MODEL_VERSION: release.version,
        names.RELEASE_DIGEST: release.digest,
    }


class Exporter:
    """Instruments of one agent. Recording may come from one thread and collecting from another."""

    def __init__(self, *, fleet: str, device: str, profile: str, boot: str) -> None:
        delta = AggregationTemporality.DELTA
        self._reader = InMemoryMetricReader(
            preferred_temporality={Histogram: delta, Counter: delta},
            preferred_aggregation={Histogram: ExponentialBucketHistogramAggregation()},
        )
        resource = Resource(
            {
                "service.name": "edgewright-agent",
                names.FLEET: fleet,
                names.DEVICE: device,
                names.PROFILE: profile,
                names.BOOT: boot,
            }
        )
        self._provider = MeterProvider([self._reader], resource, shutdown_on_exit=False)
        meter = self._provider.get_meter("edgewright")
        self._duration = meter.create_histogram(names.INFERENCE_DURATION, "s", "one inference in the runtime")
        self._preprocessing = meter.create_histogram(names.PREPROCESSING_DURATION, "s", "one input made raw")
        self._feed_errors = meter.create_counter(names.FEED_ERRORS, "{error}", "of the source or the sink")
        self._errors = meter.create_counter(names.INFERENCE_ERRORS, "{error}", "inferences that failed")
        self._sequence_gauge = meter.create_gauge(names.REPORT_SEQUENCE, "{report}", "grows by one a payload")
        self._energy = meter.create_counter(names.ENERGY, "J", "energy of the device")
        self._sequence = 0

    def record(self, model: Attributes, seconds: float, *, preprocessing_s: float | None = None) -> None:
        """One inference that succeeded; `preprocessing_s` is None where its input was raw."""
        self._duration.record(seconds, model)
        if preprocessing_s is not None:
            self._preprocessing.record(preprocessing_s, model)

    def record_error(self, model: Attributes, error: BaseException) -> None:
        """One inference that failed."""
        self._errors.add(1, {**model, ERROR_TYPE: type(error).__name__})

    def record_feed_error(self, error: BaseException) -> None:
        """A source that gave nothing or a sink that took nothing; no fault of a model's."""
        self._feed_errors.add(1, {ERROR_TYPE: type(error).__name__})

    def record_energy(self, joules: float, sensor: str) -> None:
        """Energy that the device used since the last call."""
        self._energy.add(joules, {names.SENSOR: sensor})

    def collect(self) -> bytes:
        """The window since the last call, as OTLP protobuf `MetricsData`."""
        self._sequence_gauge.set(self._sequence)
        self._sequence += 1
        data = self._reader.get_metrics_data()
        assert data is not None  # the sequence alone makes it so
        # ExportMetricsServiceRequest and MetricsData are the same on the wire: field 1, resource_metrics.
        payload: bytes = encode_metrics(data).SerializeToString()
        return payload

    def close(self) -> None:
        """Stop the SDK."""
        self._provider.shutdown()
