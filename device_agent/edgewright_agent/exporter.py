"""`Exporter`: what the device measured since the last report, as one OTLP payload.

Durations are counted in exponential histograms of our own, which come out as those of the OpenTelemetry SDK do, at
a fraction of its time (`benchmarks/agent/telemetry.py` measures both, a test compares their data points). The
names are in `edgewright.telemetry.names`; the payload is a delta, a window of its own, that the receiver merges.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from math import ceil, log2
from typing import NamedTuple

from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    Metric,
    MetricsData,
    NumberDataPoint,
    ScopeMetrics,
)

from edgewright.telemetry import names
from edgewright.telemetry.histogram import ExponentialHistogram
from edgewright.telemetry.names import Encoding, Stage
from edgewright.telemetry.otlp import Value, key_values, to_bytes, write_histogram
from edgewright.twin import ReleaseReference

SCALE = 5
"""Of recording: 32 buckets between a duration and its double, so that a quantile is off by 1.1 % at most."""
MAX_BUCKETS = 40
"""Of a histogram that is sent, a byte each: 1.1 % where the slowest is within 2.4 times of the fastest, 4.4 %
within 32 times; a wider one becomes coarser."""
_PER_DOUBLING = 1 << SCALE
_DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
_CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE

PointKey = tuple[tuple[str, Value], ...]
"""The attributes of a data point, sorted."""


class Attributes(NamedTuple):
    """What every series of a served release says; made once, when it is loaded."""

    name: str
    version: str
    digest: str


def model_attributes(release: ReleaseReference) -> Attributes:
    """The attributes of a served release."""
    return Attributes(release.name, release.version, release.digest)


class _Durations:
    """Durations counted by exponential bucket at `SCALE`; not for two threads at once."""

    __slots__ = ("buckets", "total", "zeros")

    def __init__(self) -> None:
        self.buckets: dict[int, int] = {}
        self.zeros = 0
        self.total = 0.0

    def add(self, seconds: float) -> None:
        if seconds > 0.0:
            # Bucket i holds (base^i, base^(i+1)]; base^i is 2^(i / _PER_DOUBLING).
            index = ceil(log2(seconds) * _PER_DOUBLING) - 1
            self.buckets[index] = self.buckets.get(index, 0) + 1
            self.total += seconds
        else:
            self.zeros += 1

    def histogram(self) -> ExponentialHistogram:
        return ExponentialHistogram(
            scale=SCALE, zero_count=self.zeros, buckets=self.buckets, total=self.total
        ).fitted(MAX_BUCKETS)


class _Number(NamedTuple):
    """A counter or a gauge: unit, whether amounts add up, value by attributes."""

    unit: str
    adds_up: bool
    values: dict[PointKey, float]


class _Scope:
    """The series of one release, or of the device as a whole."""

    __slots__ = ("durations", "numbers")

    def __init__(self) -> None:
        self.durations: dict[tuple[Stage, bool], _Durations] = {}
        self.numbers: dict[str, _Number] = {}


class Exporter:
    """The series of one agent. Any thread may record; one collects."""

    def __init__(
        self, *, fleet: str, device: str, profile: str, boot: str, encoding: Encoding = "protobuf"
    ) -> None:
        self._resource = {
            "service.name": "edgewright-agent",
            names.FLEET: fleet,
            names.DEVICE: device,
            names.PROFILE: profile,
            names.BOOT: boot,
        }
        self._encoding: Encoding = encoding
        self._lock = threading.Lock()
        self._scopes: dict[Attributes | None, _Scope] = {}
        self._throttled = False
        self._collected_s = time.monotonic()
        self.payloads = 0
        """How many payloads were made; the next one has this sequence."""

    def set_throttled(self, throttled: bool) -> None:
        """Whether the device is slowed down from now on; durations are kept apart by it."""
        self._throttled = throttled

    def record(
        self,
        model: Attributes,
        run_s: float,
        *,
        queue_s: float | None = None,
        preprocessing_s: float | None = None,
        postprocessing_s: float | None = None,
    ) -> None:
        """One inference that succeeded, by its stages; None is a stage that it did not have."""
        throttled = self._throttled
        with self._lock:
            durations = self._scope(model).durations
            _add(durations, ("run", throttled), run_s)
            if queue_s is not None:
                _add(durations, ("queue", throttled), queue_s)
            if preprocessing_s is not None:
                _add(durations, ("preprocessing", throttled), preprocessing_s)
            if postprocessing_s is not None:
                _add(durations, ("postprocessing", throttled), postprocessing_s)

    def record_error(self, model: Attributes, error: BaseException) -> None:
        """One inference that failed."""
        self.add(names.INFERENCE_ERRORS, "{error}", 1, {names.ERROR_TYPE: type(error).__name__}, model=model)

    def record_feed_error(self, error: BaseException) -> None:
        """A source that gave nothing or a sink that took nothing; no fault of a model's."""
        self.add(names.FEED_ERRORS, "{error}", 1, {names.ERROR_TYPE: type(error).__name__})

    def record_energy(self, joules: float, sensor: str) -> None:
        """Energy that the device used since the last call."""
        self.add(names.ENERGY, "J", joules, {names.SENSOR: sensor})

    def add(
        self,
        name: str,
        unit: str,
        amount: float,
        attributes: dict[str, Value] | None = None,
        *,
        model: Attributes | None = None,
    ) -> None:
        """Count `amount` in a counter, of a release where `model` is given. An `int` stays one."""
        self._number(name, unit, amount, attributes, model, adds_up=True)

    def set(
        self,
        name: str,
        unit: str,
        value: float,
        attributes: dict[str, Value] | None = None,
        *,
        model: Attributes | None = None,
    ) -> None:
        """What a gauge shows now; it is sent with the next payload and not again until it is set again."""
        self._number(name, unit, value, attributes, model, adds_up=False)

    def collect(self) -> bytes:
        """The window since the last call, as one payload."""
        sequence, self.payloads = self.payloads, self.payloads + 1
        self.set(names.REPORT_SEQUENCE, "{report}", sequence)
        with self._lock:
            scopes, self._scopes = self._scopes, {}
            now_s, end_ns = time.monotonic(), time.time_ns()
            # By the monotonic clock: the wall clock may have been set meanwhile, even backwards.
            start_ns = end_ns - int((now_s - self._collected_s) * 1e9)
            self._collected_s = now_s
        message = MetricsData()
        part = message.resource_metrics.add()
        part.resource.attributes.extend(key_values(self._resource))
        part.scope_metrics.extend(
            _scope_metrics(model, scope, max(start_ns, 0), end_ns) for model, scope in scopes.items()
        )
        return to_bytes(message, self._encoding)

    def _scope(self, model: Attributes | None) -> _Scope:
        scope = self._scopes.get(model)
        if scope is None:
            scope = self._scopes[model] = _Scope()
        return scope

    def _number(
        self,
        name: str,
        unit: str,
        value: float,
        attributes: dict[str, Value] | None,
        model: Attributes | None,
        *,
        adds_up: bool,
    ) -> None:
        key: PointKey = tuple(sorted((attributes or {}).items()))
        with self._lock:
            numbers = self._scope(model).numbers
            if name not in numbers:
                numbers[name] = _Number(unit, adds_up, {})
            values = numbers[name].values
            values[key] = values.get(key, 0) + value if adds_up else value


def _add(durations: dict[tuple[Stage, bool], _Durations], key: tuple[Stage, bool], seconds: float) -> None:
    found = durations.get(key)
    if found is None:
        found = durations[key] = _Durations()
    found.add(seconds)


def _scope_metrics(model: Attributes | None, scope: _Scope, start_ns: int, end_ns: int) -> ScopeMetrics:
    about = {} if model is None else _release_attributes(model)
    return ScopeMetrics(
        scope=InstrumentationScope(name="edgewright", attributes=key_values(about)),
        metrics=[
            *([_duration_metric(scope, start_ns, end_ns)] if scope.durations else []),
            *(_number_metric(name, n, start_ns, end_ns) for name, n in scope.numbers.items()),
        ],
    )


def _release_attributes(model: Attributes) -> dict[str, Value]:
    return {
        names.MODEL_NAME: model.name,
        names.MODEL_VERSION: model.version,
        names.RELEASE_DIGEST: model.digest,
    }


def _duration_metric(scope: _Scope, start_ns: int, end_ns: int) -> Metric:
    metric = Metric(name=names.INFERENCE_DURATION, unit="s")
    metric.exponential_histogram.aggregation_temporality = _DELTA
    for (stage, throttled), durations in scope.durations.items():
        point = metric.exponential_histogram.data_points.add(
            start_time_unix_nano=start_ns, time_unix_nano=end_ns
        )
        write_histogram(point, durations.histogram())
        attributes: dict[str, Value] = {names.STAGE: stage}
        # Absent is false: 28 bytes a point, on every device and in every minute.
        point.attributes.extend(
            key_values({**attributes, names.THROTTLED: True} if throttled else attributes)
        )
    return metric


def _number_metric(name: str, number: _Number, start_ns: int, end_ns: int) -> Metric:
    metric = Metric(name=name, unit=number.unit)
    points = list(_points(number, start_ns if number.adds_up else 0, end_ns))
    if number.adds_up:
        metric.sum.aggregation_temporality, metric.sum.is_monotonic = _DELTA, True
        metric.sum.data_points.extend(points)
    elif name in names.UP_DOWN:
        metric.sum.aggregation_temporality = _CUMULATIVE
        metric.sum.data_points.extend(points)
    else:
        metric.gauge.data_points.extend(points)
    return metric


def _points(number: _Number, start_ns: int, end_ns: int) -> Iterable[NumberDataPoint]:
    for key, value in number.values.items():
        point = NumberDataPoint(
            start_time_unix_nano=start_ns, time_unix_nano=end_ns, attributes=key_values(dict(key))
        )
        if isinstance(value, int):
            point.as_int = value
        else:
            point.as_double = value
        yield point
