"""`Exporter`: what the device measured since the last report, as one OTLP payload.

The OpenTelemetry SDK aggregates. It takes some 30 µs for an inference of four stages, of Python that holds the
interpreter's lock, and no inference is held up by that: the thread that inferred leaves its durations in a buffer,
and another gives them to the SDK, one inference at a time with a pause after each, in which whoever wants the lock
has it. The names are in `edgewright.telemetry.names`; a payload is a delta, a window of its own, that the receiver
merges.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from functools import lru_cache, partial
from typing import NamedTuple

from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, Counter, Histogram, MeterProvider, _Gauge
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation
from opentelemetry.sdk.resources import Resource

from edgewright.telemetry import names
from edgewright.telemetry.names import Encoding, Stage
from edgewright.telemetry.otlp import Value, to_bytes
from edgewright.twin import ReleaseReference
from edgewright_agent.payload import Period, message

SCALE = 5
"""Of recording: 32 buckets between a duration and its double, so that a quantile is off by 1.1 % at most."""
MAX_BUCKETS = 40
"""Of a histogram that is sent, a byte each: 1.1 % where the slowest is within 2.4 times of the fastest, 4.4 %
within 32 times; a wider one becomes coarser."""
BUFFERED = 1024
"""Inferences that may wait for the SDK, 0.2 MB: a quarter of a second of 4,000 a second. Whoever finds more takes
the oldest to the SDK itself, so that none is lost."""
DRAIN_PERIOD_S = 0.25
"""Between two looks at whether something waits; each takes some 30 µs."""
PAUSE_S = 50e-6
"""After each inference that is drained: as little as a Linux timer can, some 110 µs. A thread that only offers the
lock, as `sleep(0)` does, has it again before one that waits for it has woken up."""
_DELTA = AggregationTemporality.DELTA
_STAGES: tuple[Stage, ...] = ("run", "queue", "preprocessing", "postprocessing")
_Attributes = tuple[tuple[str, Value], ...]


class Attributes(NamedTuple):
    """What every series of a served release says; made once, when it is loaded."""

    name: str
    version: str
    digest: str


def model_attributes(release: ReleaseReference) -> Attributes:
    """The attributes of a served release."""
    return Attributes(release.name, release.version, release.digest)


class Exporter:
    """The series of one agent. Any thread may record; one drains, and one collects."""

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
        self._reader = InMemoryMetricReader(
            # Of a delta the SDK keeps no series beyond its period, so that those of old releases go.
            preferred_temporality={Histogram: _DELTA, Counter: _DELTA, _Gauge: _DELTA},
            preferred_aggregation={
                Histogram: ExponentialBucketHistogramAggregation(
                    max_size=MAX_BUCKETS, max_scale=SCALE, record_min_max=False
                )
            },
        )
        self._meter = MeterProvider(
            [self._reader], Resource({}), AlwaysOffExemplarFilter(), shutdown_on_exit=False
        ).get_meter("edgewright")
        self._durations = self._meter.create_histogram(names.INFERENCE_DURATION, "s")
        self._waiting: deque[tuple[Attributes, bool, tuple[float | None, ...]]] = deque()
        self._levels: dict[str, dict[_Attributes, float]] = {}
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
        stages = (run_s, queue_s, preprocessing_s, postprocessing_s)
        self._waiting.append((model, self._throttled, stages))
        if len(self._waiting) > BUFFERED:
            self._aggregate_oldest()

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
        attributes: Mapping[str, Value] | None = None,
        *,
        model: Attributes | None = None,
    ) -> None:
        """Count `amount` in a counter, of a release where `model` is given. An `int` stays one."""
        self._meter.create_counter(name, unit).add(amount, _with_release(model, attributes))

    def set(
        self,
        name: str,
        unit: str,
        value: float,
        attributes: Mapping[str, Value] | None = None,
        *,
        model: Attributes | None = None,
    ) -> None:
        """What a gauge shows now; it is sent with the next payload and not again until it is set again."""
        whole = _with_release(model, attributes)
        if name not in names.UP_DOWN:
            self._meter.create_gauge(name, unit).set(value, whole)
            return
        level = self._levels.setdefault(name, {})
        level[tuple(sorted(whole.items()))] = value
        # There is one of a name, made at the first call.
        self._meter.create_observable_up_down_counter(name, [partial(_taken, level)], unit)

    def run(self, stopping: threading.Event) -> None:
        """Drain until `stopping` is set: a thread's work."""
        while not stopping.wait(DRAIN_PERIOD_S):
            self.drain()

    def drain(self) -> None:
        """Give the SDK what waits now, and the other threads time while that takes."""
        for _ in range(len(self._waiting)):
            self._aggregate_oldest()
            time.sleep(PAUSE_S)

    def collect(self) -> bytes:
        """The window since the last call, as one payload."""
        sequence, self.payloads = self.payloads, self.payloads + 1
        self.set(names.REPORT_SEQUENCE, "{report}", sequence)
        for _ in range(len(self._waiting)):
            self._aggregate_oldest()
        data = self._reader.get_metrics_data()
        now_s, end_ns = time.monotonic(), time.time_ns()
        # By the monotonic clock: the wall clock may have been set meanwhile, even backwards.
        start_ns = end_ns - int((now_s - self._collected_s) * 1e9)
        self._collected_s = now_s
        return to_bytes(message(data, self._resource, Period(max(start_ns, 0), end_ns)), self._encoding)

    def _aggregate_oldest(self) -> None:
        try:
            model, throttled, stages = self._waiting.popleft()
        except IndexError:  # another thread took it
            return
        for stage, seconds in zip(_STAGES, stages, strict=True):
            if seconds is not None:
                self._durations.record(seconds, _of_a_duration(model, stage, throttled))


def _taken(level: dict[_Attributes, float], options: CallbackOptions) -> Iterable[Observation]:
    """What an up-down counter says when the SDK asks; what was said is not said again."""
    while level:
        attributes, value = level.popitem()
        yield Observation(value, dict(attributes))


def _with_release(model: Attributes | None, own: Mapping[str, Value] | None) -> dict[str, Value]:
    if model is None:
        return dict(own or {})
    return {
        names.MODEL_NAME: model.name,
        names.MODEL_VERSION: model.version,
        names.RELEASE_DIGEST: model.digest,
        **(own or {}),
    }


@lru_cache(16)
def _of_a_duration(model: Attributes, stage: Stage, throttled: bool) -> Mapping[str, Value]:
    # Absent is false: 28 bytes a point, on every device and in every minute.
    own: dict[str, Value] = {names.STAGE: stage, **({names.THROTTLED: True} if throttled else {})}
    return _with_release(model, own)
