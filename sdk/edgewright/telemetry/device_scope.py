"""What a payload says of the device as a whole, read from its OTLP scope by where the figures lie.

Such a scope is a dozen metrics with a number each, which OTLP writes in eight bytes whatever it is: from one
payload to the next, and from one device to another of its kind, all other bytes are the same. So a scope is read
metric by metric once, and others by a `Layout`: are all bytes but the numbers and times those of the one that was
read, the figures lie where they lay there. That takes an eighth of the time.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Iterator
from typing import Any, NamedTuple

from opentelemetry.proto.metrics.v1.metrics_pb2 import ScopeMetrics

from edgewright.telemetry import names

LARGEST = 4096
"""Bytes of a scope whose layout is kept; a device's has 750."""
KEPT = 256
"""Layouts. A fleet has some for each kind of device, and whoever sends ever new ones shall not fill the memory."""


class DeviceFigures(NamedTuple):
    """The figures, in the units of `names`; None where a payload does not have one."""

    sequence: float | None = None
    dropped: float | None = None
    energy_j: float | None = None
    energy_above_idle_j: float | None = None
    estimated_energy_j: float | None = None
    temperature_c: float | None = None
    throttled_s: float | None = None


FIGURES = (
    names.REPORT_SEQUENCE,
    names.REPORTS_DROPPED,
    names.ENERGY,
    names.ENERGY_ABOVE_IDLE,
    names.ENERGY_ESTIMATED,
    names.TEMPERATURE,
    names.THROTTLED_TIME,
)
"""The metrics that they are read from, in the same order; more points than one of a metric add up."""

OF_A_RELEASE = frozenset({names.INFERENCE_DURATION, names.INFERENCE_ERRORS, names.DRIFT_SAMPLES, names.DRIFT})


class Layout(NamedTuple):
    """Where the figures lie in a scope of these bytes."""

    mask: int
    """Ones in every byte but those of numbers and times; little-endian, as `fixed` is."""
    fixed: int
    """The scope under the mask."""
    numbers: struct.Struct
    order: tuple[int | None, ...]
    """For each figure its place among the numbers."""
    sensor: str | None


_layouts: dict[int, list[Layout]] = {}
"""By the length of the scope."""


def known_figures(data: bytes) -> tuple[DeviceFigures, str | None] | None:
    """What `read_device_scope` says of a `ScopeMetrics`; None: it is of no layout that is known.

    A number may be anything that a float holds.
    """
    for layout in _layouts.get(len(data), ()):
        if int.from_bytes(data, "little") & layout.mask == layout.fixed:
            values = layout.numbers.unpack_from(data)
            return DeviceFigures(*[None if at is None else values[at] for at in layout.order]), layout.sensor
    return None


def read_device_scope(data: bytes) -> tuple[DeviceFigures, str | None] | None:
    """The figures in a `ScopeMetrics`, and the sensor that measured the energy, to be known from now on.

    None: it holds metrics of a release. Raises protobuf's `DecodeError`.
    """
    scope = ScopeMetrics.FromString(data)
    if any(metric.name in OF_A_RELEASE for metric in scope.metrics):
        return None
    figures, sensor = _read(scope)
    if len(data) <= LARGEST and (learnt := _layout(scope, data, sensor)) is not None:
        if sum(map(len, _layouts.values())) >= KEPT:
            _layouts.clear()
        _layouts.setdefault(len(data), []).append(learnt)
    return figures, sensor


def _read(scope: Any) -> tuple[DeviceFigures, str | None]:
    found: dict[str, float] = {}
    sensor = None
    for metric in scope.metrics:
        if (name := metric.name) in FIGURES:
            points = metric.gauge.data_points or metric.sum.data_points
            found[name] = sum(point.as_double or point.as_int for point in points)
            if name == names.ENERGY and points:
                about = {pair.key: pair.value.string_value for pair in points[0].attributes}
                sensor = about.get(names.SENSOR)
    return DeviceFigures(*map(found.get, FIGURES)), sensor


def _layout(scope: Any, data: bytes, sensor: str | None) -> Layout | None:
    """How a scope is laid out: found by writing other numbers into a copy, and looking which bytes change.

    None where it is not a scope of one number a metric, written as everybody writes it.
    """
    kinds = [metric.WhichOneof("data") for metric in scope.metrics]
    points = list(_points(scope)) if set(kinds) <= {"gauge", "sum"} else []
    said = [name for name, _ in points if name in FIGURES]
    if len(points) != len(kinds) or len(said) != len(set(said)):
        return None
    plain = _filled(scope, ())
    mask = _same(plain, _filled(scope, range(len(points))))
    fixed = int.from_bytes(plain, "little") & mask
    if len(plain) != len(data) or int.from_bytes(data, "little") & mask != fixed:
        return None
    code, end, order = "<", 0, dict[str, int]()
    for index, (name, point) in enumerate(points):
        if name in FIGURES and (kind := point.WhichOneof("value")) is not None:
            changed = _same(plain, _filled(scope, (index,))) ^ ((1 << 8 * len(plain)) - 1)
            at = changed.bit_length() // 8 - 8  # the number comes after its times
            code += f"{at - end}x{'d' if kind == 'as_double' else 'q'}"
            end, order[name] = at + 8, len(order)
    if len(order) != len(said):
        return None
    return Layout(mask, fixed, struct.Struct(code), tuple(map(order.get, FIGURES)), sensor)


def _points(scope: Any) -> Iterator[tuple[str, Any]]:
    for metric in scope.metrics:
        for point in getattr(metric, metric.WhichOneof("data")).data_points:
            yield metric.name, point


def _filled(scope: Any, chosen: Container[int]) -> bytes:
    """The scope with one number everywhere, and another one in the chosen points."""
    copy = ScopeMetrics()
    copy.CopyFrom(scope)
    for index, (_, point) in enumerate(_points(copy)):
        number = bytes([1 + (index in chosen)]) * 8
        for field in ("start_time_unix_nano", "time_unix_nano", point.WhichOneof("value")):
            if field is not None and (field.startswith("as_") or getattr(point, field)):
                setattr(point, field, struct.unpack("<d" if field == "as_double" else "<q", number)[0])
    data: bytes = copy.SerializeToString()
    return data


def _same(first: bytes, second: bytes) -> int:
    """A mask of the bytes that two texts of one length share."""
    return int.from_bytes(bytes(255 * (a == b) for a, b in zip(first, second, strict=True)), "little")
