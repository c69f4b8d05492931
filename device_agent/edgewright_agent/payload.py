"""From what the OpenTelemetry SDK aggregated to OTLP, in as few bytes as it needs.

The SDK's own encoder repeats a release's name, version and digest in each data point, and writes the room that a
histogram has grown to and bounds that nobody recorded. Here a release stands once, as attributes of its scope
(`edgewright.telemetry.names`). A test holds what is read from the two equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from opentelemetry.proto.metrics.v1 import metrics_pb2 as otlp
from opentelemetry.sdk.metrics import export as sdk

from edgewright.telemetry import names
from edgewright.telemetry.otlp import Attributes, Value, key_values

OF_A_RELEASE = (names.MODEL_NAME, names.MODEL_VERSION, names.RELEASE_DIGEST)
FINEST = 20
"""The scale that takes nothing from what it is merged with: of a histogram of nothing but noughts."""


class Period(NamedTuple):
    """Unix times in nanoseconds. The SDK's own are of a clock that may be set meanwhile."""

    start_ns: int
    end_ns: int


def message(data: sdk.MetricsData | None, resource: Attributes, period: Period) -> otlp.MetricsData:
    """All data points of one collection, None where there are none, as of `period`."""
    written = otlp.MetricsData()
    part = written.resource_metrics.add()
    part.resource.attributes.extend(key_values(resource))
    scopes: dict[tuple[Value, ...], otlp.ScopeMetrics] = {}
    for metric in _metrics(data):
        for point in metric.data.data_points:
            attributes: dict[str, Any] = dict(point.attributes or {})
            release = {name: attributes.pop(name) for name in OF_A_RELEASE if name in attributes}
            scope = scopes.get(tuple(release.values()))
            if scope is None:
                scope = scopes[tuple(release.values())] = part.scope_metrics.add()
                scope.scope.name = "edgewright"
                scope.scope.attributes.extend(key_values(release))
            if not scope.metrics or scope.metrics[-1].name != metric.name:
                scope.metrics.add(name=metric.name, unit=metric.unit)
            _write(scope.metrics[-1], metric.data, point, period).attributes.extend(key_values(attributes))
    return written


def _metrics(data: sdk.MetricsData | None) -> Iterator[sdk.Metric]:
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            yield from scope.metrics


def _write(metric: otlp.Metric, data: sdk.DataT, point: Any, period: Period) -> Any:
    """Add a data point, still without attributes, to a metric of the SDK's kind."""
    if isinstance(data, sdk.Gauge):
        return _number(metric.gauge.data_points.add(time_unix_nano=period.end_ns), point)
    kind: Any = metric.exponential_histogram
    if isinstance(data, sdk.Sum):
        kind = metric.sum
        kind.is_monotonic = data.is_monotonic
    kind.aggregation_temporality = data.aggregation_temporality
    is_delta = data.aggregation_temporality == sdk.AggregationTemporality.DELTA
    written = kind.data_points.add(
        start_time_unix_nano=period.start_ns if is_delta else 0, time_unix_nano=period.end_ns
    )
    return _number(written, point) if isinstance(data, sdk.Sum) else _histogram(written, point)


def _histogram(written: Any, point: sdk.ExponentialHistogramDataPoint) -> Any:
    counts = list(point.positive.bucket_counts)
    while counts and not counts[-1]:  # the room that it has grown to
        counts.pop()
    written.count, written.zero_count, written.sum = point.count, point.zero_count, point.sum
    written.scale = point.scale if counts else FINEST
    if counts:
        written.positive.offset = point.positive.offset
        written.positive.bucket_counts.extend(counts)
    return written


def _number(written: Any, point: sdk.NumberDataPoint) -> Any:
    if isinstance(point.value, int):
        written.as_int = point.value
    else:
        written.as_double = point.value
    return written
