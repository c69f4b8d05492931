"""`Reading`: what a fleet needs of a window, read from OTLP at a fraction of what `decode_otlp` costs.

A hub and a controller read every payload of every device, and of each a few figures, so that they pay for no model
of the rest. A payload as the agent writes it, with one release, is read straight from its bytes; any other is
left to `decode_otlp`, which says the same of both (a property test holds the two together).
"""

from __future__ import annotations

import re
import struct
import zlib
from functools import lru_cache
from math import inf, isfinite
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.metrics.v1.metrics_pb2 import ExponentialHistogramDataPoint, Metric
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from edgewright.contract import from_json
from edgewright.errors import DataError
from edgewright.telemetry import names
from edgewright.telemetry.device_scope import OF_A_RELEASE, DeviceFigures, known_figures, read_device_scope
from edgewright.telemetry.histogram import ExponentialHistogram
from edgewright.telemetry.otlp import protobuf_in
from edgewright.telemetry.sketch import DataSketch
from edgewright.telemetry.window import TelemetryWindow, decode_otlp
from edgewright.telemetry.wire import inside, taken_apart

WIDEST = 4096
"""Buckets of a histogram that is read; a device writes 40 at most, and one that spans more is no measurement."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_FIRST, _SECOND, _HISTOGRAM = 0x0A, 0x12, 0x52
"""Tags of fields 1, 2 and 10 of bytes: on the way down to a metric, a header and the messages below it."""
_DURATION = bytes((_FIRST, len(names.INFERENCE_DURATION))) + names.INFERENCE_DURATION.encode() + b"\x1a\x01s"
"""How the metric of that name begins: with its name and unit."""
_TIMES = struct.Struct("<BQBQ")
"""A data point's start and end, each after its tag."""


class Durations(NamedTuple):
    """An exponential histogram as OTLP has it: counts of the buckets from `offset` on. Seconds."""

    scale: int = 20
    zero_count: int = 0
    offset: int = 0
    counts: tuple[int, ...] = ()
    total: float = 0.0
    events: int = 0
    """How many there are."""

    @classmethod
    def of(cls, histogram: ExponentialHistogram) -> Durations:
        """The same as the contract's histogram. Raises `DataError` where it is too wide."""
        scale, zeros, buckets = histogram.scale, histogram.zero_count, histogram.buckets
        if not buckets:
            return cls(scale, zeros, total=histogram.total, events=zeros)
        low, high = min(buckets), max(buckets)
        if high - low >= WIDEST:
            raise DataError("a histogram holds what no device measures", where="telemetry payload")
        counts = tuple(buckets.get(index, 0) for index in range(low, high + 1))
        return cls(scale, zeros, low, counts, histogram.total, histogram.count)

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
    try:
        found = _plain(protobuf_in(payload))
    # What is wrong with it, if anything is, `decode_otlp` says.
    except (
        DecodeError,
        DataError,
        zlib.error,
        struct.error,
        IndexError,
        KeyError,
        ValueError,
        OverflowError,
    ):
        found = None
    return tuple(map(reading_of, decode_otlp(payload))) if found is None else found


def _plain(data: bytes) -> tuple[Reading, ...] | None:
    """The one window of a payload of the usual form, none where it holds no release; None: of another form.

    For another form it may also raise what `read_otlp` catches.
    """
    device: tuple[DeviceFigures, str | None] | None = None
    about: tuple[str, str, str] | None = None
    release: list[bytes] = []
    resource, *scopes = taken_apart(data[inside(data, _FIRST) :], _FIRST, _SECOND)
    for scope in scopes:
        found = known_figures(scope)
        if found is None:
            head, *metrics = taken_apart(scope, _FIRST, _SECOND)
            # A device may send as much as a payload holds, and that is not for keeping.
            said = _kept_about(head) if len(head) < 512 else _about(head)
            if said is not None:
                if about is not None:
                    return None
                about, release = said, metrics
                continue
            found = read_device_scope(scope)
        if found is None or device is not None:
            return None
        device = found
    if device is None:
        return None
    (sequence, dropped, energy_j, above_idle_j, estimated_j, temperature_c, throttled_s), sensor = device
    if sequence is None:
        return None
    if about is None:
        return ()
    latency, throttled, errors, psi, sketch, start_ns, end_ns = _of_release(release)
    # As with scopes: what a device may send is not all for keeping.
    fleet, name, profile, boot = _kept_who(resource) if len(resource) < 512 else _who(resource)
    counts = (sequence, errors, dropped or 0, energy_j or 0, estimated_j or 0, throttled_s or 0, psi or 0)
    if min(counts) < 0 or not isfinite(sum(counts) + (above_idle_j or 0) + (temperature_c or 0)):
        return None
    reading = Reading(
        fleet, name, profile, boot, int(sequence), start_ns, end_ns, *about, latency, throttled, int(errors),
        int(dropped or 0), energy_j, sensor, above_idle_j, estimated_j, temperature_c, throttled_s, psi, sketch,
    )  # fmt: skip
    return (reading,) if end_ns else ()


def _of_release(
    metrics: list[bytes],
) -> tuple[Durations, int, float, float | None, DataSketch | None, int, int]:
    """Latency, throttled inferences, errors, class PSI, sketch, and the window's start and end, which is 0 where
    nothing is said of the release."""
    latency, throttled, errors, psi, sketch = Durations(), 0, 0.0, None, None
    start_ns = end_ns = 0
    for data in metrics:
        if data.startswith(_DURATION):
            latency, throttled, start_ns, end_ns = _durations(data)
            continue
        metric = Metric.FromString(data)
        if metric.name == names.INFERENCE_DURATION:
            raise ValueError
        name, points = metric.name, metric.sum.data_points or metric.gauge.data_points
        if name == names.DRIFT:
            for point in points:
                if _text(point.attributes, names.DRIFT_FIGURE) == "class_psi":
                    psi = float(point.as_double or point.as_int)
        elif name in OF_A_RELEASE:
            if points and not end_ns:
                start_ns, end_ns = points[0].start_time_unix_nano, points[0].time_unix_nano
            if name == names.INFERENCE_ERRORS:
                errors += sum(point.as_int or point.as_double for point in points)
            elif points and sketch is None:
                text = _text(points[0].attributes, names.DRIFT_SKETCH).encode()
                sketch = from_json(DataSketch, text, where="telemetry payload", error=DataError)
    return latency, throttled, errors, psi if sketch else None, sketch, start_ns, end_ns


def _durations(metric: bytes) -> tuple[Durations, int, int, int]:
    """The latency, the throttled inferences, and the window's start and end."""
    histogram = metric[inside(metric, _HISTOGRAM, len(_DURATION)) :]
    latency, throttled, times = Durations(), 0, b""
    for data in taken_apart(histogram, _FIRST, _FIRST):
        at = 0
        while data[at] == _FIRST:  # its attributes, and after them two times
            at += 2 + data[at + 1]
        said = data[at : at + 18]
        if times and said != times:
            raise ValueError
        times = said
        throttling = _kept_throttling(data[:at]) if at < 128 else _throttling(data[:at])
        if throttling is None:  # another stage
            continue
        point = ExponentialHistogramDataPoint.FromString(data)
        zeros, scale, total = point.zero_count, point.scale, point.sum
        counts = tuple(point.positive.bucket_counts)
        events = zeros + sum(counts)
        if throttling:
            throttled += events
        elif latency.events or len(counts) > WIDEST or not (-10 <= scale <= 20 and 0 <= total < inf):
            raise ValueError
        else:
            latency = Durations(scale, zeros, point.positive.offset, counts, total, events)
    begin, start_ns, end, end_ns = _TIMES.unpack(times)
    if (begin, end) != (0x11, 0x19):
        raise ValueError
    return latency, throttled, start_ns, end_ns


def _throttling(attributes: bytes) -> bool | None:
    """Whether a duration is of a device that was slowed down; None: it is not of the run."""
    slowed = False
    for pair in ExponentialHistogramDataPoint.FromString(attributes).attributes:
        if pair.key == names.STAGE and pair.value.string_value != "run":
            return None
        slowed = slowed or (pair.key == names.THROTTLED and pair.value.bool_value)
    return slowed


_kept_throttling = lru_cache(maxsize=64)(_throttling)


def _text(attributes: Any, key: str) -> str:
    """Raises `KeyError`."""
    text: str = {pair.key: pair.value.string_value for pair in attributes}[key]
    return text


def _who(resource: bytes) -> tuple[str, str, str, str]:
    """Fleet, device, profile and boot. Raises `KeyError` or `ValueError`."""
    found = {pair.key: pair.value.string_value for pair in Resource.FromString(resource).attributes}
    fleet, name, profile, boot = (found[k] for k in (names.FLEET, names.DEVICE, names.PROFILE, names.BOOT))
    if not (_is_name(fleet) and _is_name(profile) and _NAME.fullmatch(name)):
        raise ValueError
    return fleet, name, profile, boot


_kept_who = lru_cache(maxsize=1 << 14)(_who)
"""A device says the same of itself in each window; at some 600 bytes for each."""


def _about(scope: bytes) -> tuple[str, str, str] | None:
    """Model, version and digest of a scope; None: it is of no release. Raises `KeyError` or `ValueError`."""
    found = {pair.key: pair.value.string_value for pair in InstrumentationScope.FromString(scope).attributes}
    if not found:
        return None
    model, version, digest = (found[k] for k in (names.MODEL_NAME, names.MODEL_VERSION, names.RELEASE_DIGEST))
    if not (_is_name(model) and _is_name(version) and _DIGEST.fullmatch(digest)):
        raise ValueError
    return model, version, digest


_kept_about = lru_cache(maxsize=256)(_about)
"""What scopes say of their release, which a whole fleet says in the same bytes."""


@lru_cache(maxsize=4096)
def _is_name(name: str) -> bool:
    """Kept, as a fleet has few of these."""
    return _NAME.fullmatch(name) is not None


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
