"""`Reading`: what a fleet needs of a window, read from OTLP at a fraction of what `decode_otlp` costs.

A hub and a controller read every payload of every device, and of each a few figures, so that they pay for no model
of the rest. A payload as the agent writes it, with one release, is read straight from the message; any other is
left to `decode_otlp`, which says the same of both (a property test holds the two together).
"""

from __future__ import annotations

import re
from functools import lru_cache
from math import isfinite
from typing import Any, NamedTuple

from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope

from edgewright.contract import from_json
from edgewright.errors import DataError
from edgewright.telemetry import names
from edgewright.telemetry.histogram import ExponentialHistogram
from edgewright.telemetry.otlp import from_bytes
from edgewright.telemetry.sketch import DataSketch
from edgewright.telemetry.window import TelemetryWindow, decode_otlp

WIDEST = 4096
"""Buckets of a histogram that is read; a device writes 40 at most, and one that spans more is no measurement."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Durations(NamedTuple):
    """An exponential histogram as OTLP has it: counts of the buckets from `offset` on. Seconds."""

    scale: int = 20
    zero_count: int = 0
    offset: int = 0
    counts: tuple[int, ...] = ()
    total: float = 0.0

    @property
    def events(self) -> int:
        """How many there are."""
        return self.zero_count + sum(self.counts)

    @classmethod
    def of(cls, histogram: ExponentialHistogram) -> Durations:
        """The same as the contract's histogram. Raises `DataError` where it is too wide."""
        scale, zeros, buckets = histogram.scale, histogram.zero_count, histogram.buckets
        if not buckets:
            return cls(scale, zeros, total=histogram.total)
        low, high = min(buckets), max(buckets)
        if high - low >= WIDEST:
            raise DataError("a histogram holds what no device measures", where="telemetry payload")
        counts = tuple(buckets.get(index, 0) for index in range(low, high + 1))
        return cls(scale, zeros, low, counts, histogram.total)

    def quantile(self, share: float) -> float:
        """As `ExponentialHistogram` has it."""
        return self.histogram().quantile(share)

    def histogram(self) -> ExponentialHistogram:
        """The contract's histogram."""
        buckets = {self.offset + i: n for i, n in enumerate(self.counts) if n}
        return ExponentialHistogram.model_construct(
            scale=self.scale, zero_count=self.zero_count, buckets=buckets, total=self.total
        )


class Reading(NamedTuple):
    """One device, one release, one period: what a fleet needs of a `TelemetryWindow`, by the same names."""

    fleet: str
    device: str
    profile: str
    boot: str
    sequence: int
    start_ns: int
    end_ns: int
    model: str
    version: str
    release: str
    latency: Durations
    throttled: int
    errors: int
    dropped: int
    energy_j: float | None
    energy_sensor: str | None
    energy_above_idle_j: float | None
    estimated_energy_j: float | None
    temperature_c: float | None
    throttled_s: float | None
    class_psi: float | None
    sketch: DataSketch | None

    @property
    def inferences(self) -> int:
        """Those that succeeded."""
        return self.latency.events + self.throttled

    @property
    def energy_per_inference_j(self) -> float | None:
        """As `TelemetryWindow` has it."""
        inferences = self.inferences
        return (
            None
            if self.energy_above_idle_j is None or not inferences
            else self.energy_above_idle_j / inferences
        )


def read_otlp(payload: bytes) -> tuple[Reading, ...]:
    """The windows of a payload. Raises `DataError` for anything else."""
    parts = from_bytes(payload).resource_metrics
    if len(parts) == 1:
        found = _plain(parts[0])
        if found is not None:
            return found
    return tuple(reading_of(window) for window in decode_otlp(payload))


_DEVICE_WIDE = {
    names.REPORT_SEQUENCE: 0,
    names.REPORTS_DROPPED: 1,
    names.ENERGY: 2,
    names.ENERGY_ABOVE_IDLE: 3,
    names.ENERGY_ESTIMATED: 4,
    names.TEMPERATURE: 5,
    names.THROTTLED_TIME: 6,
}
_OF_A_RELEASE = frozenset(
    {names.INFERENCE_DURATION, names.INFERENCE_ERRORS, names.DRIFT_SAMPLES, names.DRIFT}
)


def _plain(part: Any) -> tuple[Reading, ...] | None:
    """The one window of a payload of the usual form, none where it holds no release; None: of another form."""
    figures: list[float | None] = [None] * 7
    sensor: str | None = None
    release: Any = None
    for scope in part.scope_metrics:
        if scope.scope.attributes:
            if release is not None:
                return None
            release = scope
            continue
        for metric in scope.metrics:
            name = metric.name
            place = _DEVICE_WIDE.get(name)
            if place is not None:
                points = metric.gauge.data_points or metric.sum.data_points
                value = _value(points[0]) if len(points) == 1 else sum(map(_value, points))
                if name == names.ENERGY and points:
                    sensor = _text(points[0].attributes, names.SENSOR)
                if not isfinite(value):
                    raise DataError(f"{name} is no number", where="telemetry payload")
                figures[place] = value
            elif name in _OF_A_RELEASE:
                return None
    sequence, dropped, energy_j, above_idle_j, estimated_j, temperature_c, throttled_s = figures
    if sequence is None:
        raise DataError("a telemetry payload cannot be read (no sequence)")
    if release is None:
        return ()
    scope = release.scope.SerializeToString()
    # A device may send as much as a payload holds, and that is not for keeping.
    about = _kept_about(scope) if len(scope) < 512 else _about(scope)
    of_release = _of_release(release.metrics)
    if of_release is None:
        return None
    latency, throttled, errors, psi, sketch, start_ns, end_ns = of_release
    if end_ns is None:
        return ()
    who = {pair.key: pair.value.string_value for pair in part.resource.attributes}
    try:
        reading = Reading(
            who[names.FLEET], who[names.DEVICE], who[names.PROFILE], who[names.BOOT], int(sequence), start_ns,
            end_ns, *about, latency,
            throttled, errors, int(dropped or 0), energy_j, sensor, above_idle_j, estimated_j, temperature_c,
            throttled_s, psi, sketch,
        )  # fmt: skip
    except KeyError as error:
        raise DataError(f"a telemetry payload cannot be read ({error})") from None
    if min(sequence, errors, dropped or 0, energy_j or 0, estimated_j or 0, throttled_s or 0) < 0:
        raise DataError("what counts up is below zero", where="telemetry payload")
    _must_be_name(reading.fleet)
    _must_be_name(reading.profile)
    if not _NAME.fullmatch(reading.device):
        raise DataError(f"'{reading.device}' is no name", where="telemetry payload")
    return (reading,)


def _of_release(
    metrics: Any,
) -> tuple[Durations, int, int, float | None, DataSketch | None, int, int | None] | None:
    """Latency, throttled inferences, errors, class PSI, sketch, and the window's start and end; None: of another
    form. The end is None where nothing is said of the release."""
    latency, throttled, errors, psi, sketch = None, 0, 0.0, None, None
    start_ns, end_ns = 0, None
    for metric in metrics:
        name = metric.name
        if name == names.INFERENCE_DURATION:
            for point in metric.exponential_histogram.data_points:
                start_ns, end_ns = point.start_time_unix_nano, point.time_unix_nano
                stage, slowed = "run", False
                for pair in point.attributes:
                    key = pair.key
                    if key == names.STAGE:
                        stage = pair.value.string_value
                    elif key == names.THROTTLED:
                        slowed = pair.value.bool_value
                if stage != "run":
                    continue
                read = _durations(point)
                if slowed:
                    throttled += read.events
                elif latency is None:
                    latency = read
                else:
                    return None
        elif name == names.INFERENCE_ERRORS:
            for point in metric.sum.data_points or metric.gauge.data_points:
                if end_ns is None:
                    start_ns, end_ns = point.start_time_unix_nano, point.time_unix_nano
                errors += point.as_int or point.as_double
        elif name == names.DRIFT_SAMPLES:
            for point in metric.sum.data_points or metric.gauge.data_points:
                if end_ns is None:
                    start_ns, end_ns = point.start_time_unix_nano, point.time_unix_nano
                sketch = sketch or _sketch(point)
        elif name == names.DRIFT:
            for point in metric.gauge.data_points:
                if _text(point.attributes, names.DRIFT_FIGURE) == "class_psi":
                    psi = float(point.as_double or point.as_int)
    if not isfinite(errors) or (psi is not None and not 0 <= psi < float("inf")):
        raise DataError("a figure is no number", where="telemetry payload")
    if sketch is None:
        psi = None
    return latency or Durations(), throttled, int(errors), psi, sketch, start_ns, end_ns


def _sketch(point: Any) -> DataSketch:
    text = _text(point.attributes, names.DRIFT_SKETCH) or ""
    return from_json(DataSketch, text.encode(), where="telemetry payload", error=DataError)


def _value(point: Any) -> float:
    value: float = point.as_double or point.as_int
    return value


def _text(attributes: Any, key: str) -> str | None:
    for pair in attributes:
        if pair.key == key:
            text: str = pair.value.string_value
            return text
    return None


def _durations(point: Any) -> Durations:
    positive = point.positive
    counts = tuple(positive.bucket_counts)
    total, scale = point.sum, point.scale
    if len(counts) > WIDEST or not -10 <= scale <= 20 or not 0 <= total < float("inf"):
        raise DataError("a histogram holds what no device measures", where="telemetry payload")
    return Durations(scale, point.zero_count, positive.offset, counts, total)


def _about(scope: bytes) -> tuple[str, str, str]:
    """Model, version and digest of a scope. Raises `DataError`."""
    found = {pair.key: pair.value.string_value for pair in InstrumentationScope.FromString(scope).attributes}
    try:
        model, version = found[names.MODEL_NAME], found[names.MODEL_VERSION]
        digest = found[names.RELEASE_DIGEST]
    except KeyError as error:
        raise DataError(f"a telemetry payload cannot be read ({error})") from None
    _must_be_name(model)
    _must_be_name(version)
    if not _DIGEST.fullmatch(digest):
        raise DataError("the release has no digest", where="telemetry payload")
    return model, version, digest


_kept_about = lru_cache(maxsize=256)(_about)
"""What scopes say of their release, which a whole fleet says in the same bytes."""


@lru_cache(maxsize=4096)
def _must_be_name(name: str) -> None:
    """Raises `DataError`; what passed once is known, as a fleet has few of these."""
    if not _NAME.fullmatch(name):
        raise DataError(f"'{name[:130]}' is no name", where="telemetry payload")


def reading_of(window: TelemetryWindow) -> Reading:
    """The same of a window."""
    drift = window.drift
    return Reading(
        window.fleet, window.device, window.profile, window.boot, window.sequence, window.start_ns,
        window.end_ns, window.model, window.version, window.release, Durations.of(window.latency),
        window.throttled.count, window.errors, window.dropped, window.energy_j, window.energy_sensor,
        window.energy_above_idle_j, window.estimated_energy_j, window.temperature_c, window.throttled_s,
        drift.class_psi if drift else None, window.sketch,
    )  # fmt: skip
