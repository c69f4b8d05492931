"""What a hub reads of a payload is what `decode_otlp` says of it, whoever wrote it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData

from edgewright.errors import DataError
from edgewright.telemetry import names
from edgewright.telemetry.otlp import from_bytes
from edgewright.telemetry.reading import Reading, read_otlp
from edgewright.telemetry.window import TelemetryWindow, decode_otlp
from edgewright.twin import ReleaseReference
from edgewright_agent.exporter import Exporter, model_attributes

DURATION = st.floats(min_value=0, max_value=1e4)
AMOUNT = st.floats(min_value=0, max_value=1e9)
MODELS = [
    model_attributes(ReleaseReference(name="net", version=version, digest="sha256:" + version * 64))
    for version in "12"
]


@st.composite
def payloads(draw: st.DrawFn) -> bytes:
    exporter = Exporter(
        fleet="f",
        device="d",
        profile="gateway",
        boot="b",
        encoding=draw(st.sampled_from(["protobuf", "json"])),
    )
    for model in MODELS[: draw(st.integers(0, 2))]:
        for throttled in (False, True):
            exporter.set_throttled(throttled)
            for run_s in draw(st.lists(DURATION, max_size=4)):
                exporter.record(model, run_s, queue_s=draw(st.none() | DURATION))
        for _ in range(draw(st.integers(0, 2))):
            exporter.record_error(model, draw(st.sampled_from([ValueError(), OSError()])))
        if draw(st.booleans()):
            sketch = '{"classes":[1,2],"confidence":[0,3],"inputs":{"x":[]},"samples":3}'
            exporter.add(names.DRIFT_SAMPLES, "{inference}", 3, {names.DRIFT_SKETCH: sketch}, model=model)
            for figure in draw(st.sets(st.sampled_from(["class_psi", "input_shift"]))):
                exporter.set(names.DRIFT, "1", draw(AMOUNT), {names.DRIFT_FIGURE: figure}, model=model)
    for name in draw(st.sets(st.sampled_from([names.ENERGY_ESTIMATED, names.THROTTLED_TIME]))):
        exporter.add(name, "", draw(AMOUNT))
    if draw(st.booleans()):
        exporter.record_energy(draw(AMOUNT), "sensor")
        exporter.set(names.ENERGY_ABOVE_IDLE, "J", draw(AMOUNT) - 1e8)
        exporter.set(names.TEMPERATURE, "Cel", draw(AMOUNT) - 1e8, {names.SENSOR: "cpu"})
        exporter.set(names.REPORTS_DROPPED, "{report}", draw(st.integers(0, 1000)))
    return exporter.collect()


def alike(reading: Reading, window: TelemetryWindow) -> None:
    for name in (
        "fleet", "device", "profile", "boot", "sequence", "end_ns", "model", "version", "errors", "dropped",
        "energy_j", "energy_above_idle_j", "estimated_energy_j", "temperature_c", "throttled_s",
        "energy_per_inference_j",
    ):  # fmt: skip
        assert getattr(reading, name) == getattr(window, name), name
    assert reading.latency.histogram().buckets == window.latency.buckets
    assert reading.latency.events == window.latency.count
    assert reading.latency.total == window.latency.total
    if window.latency.buckets:
        assert reading.latency.scale == window.latency.scale
    assert reading.throttled == window.throttled.count
    assert reading.class_psi == (window.drift.class_psi if window.drift else None)
    assert reading.sketch == window.sketch


@settings(max_examples=300, deadline=None)
@given(payloads())
def test_reading_says_what_the_window_says(payload: bytes) -> None:
    readings, windows = read_otlp(payload), decode_otlp(payload)
    assert len(readings) == len(windows)
    for reading, window in zip(readings, windows, strict=True):
        alike(reading, window)


@settings(max_examples=200, deadline=None)
@given(payloads(), st.integers(0, 10_000), st.integers(0, 255))
def test_a_damaged_payload_is_refused_in_one_line_or_read_as_it_stands(
    payload: bytes, at: int, byte: int
) -> None:
    message: bytes = from_bytes(payload).SerializeToString()
    damaged = message[: at % len(message)] + bytes([byte]) + message[at % len(message) + 1 :]
    try:
        readings = read_otlp(damaged)
    except DataError as error:
        assert "\n" not in str(error)
        return
    assert all(reading.latency.total >= 0 and reading.errors >= 0 for reading in readings)


def broken(change: Any) -> bytes:
    exporter = Exporter(fleet="f", device="d", profile="gateway", boot="b")
    exporter.record(MODELS[0], 0.01)
    exporter.record_error(MODELS[0], ValueError())
    exporter.record_energy(1.0, "sensor")
    message = MetricsData()
    message.CopyFrom(from_bytes(exporter.collect()))
    change({m.name: m for s in message.resource_metrics[0].scope_metrics for m in s.metrics}, message)
    data: bytes = message.SerializeToString()
    return data


def _nan_energy(metrics: Any, _: Any) -> None:
    metrics[names.ENERGY].sum.data_points[0].as_double = float("nan")


def _negative_energy(metrics: Any, _: Any) -> None:
    metrics[names.ENERGY].sum.data_points[0].as_double = -1.0


def _negative_errors(metrics: Any, _: Any) -> None:
    metrics[names.INFERENCE_ERRORS].sum.data_points[0].as_int = -5


def _infinite_total(metrics: Any, _: Any) -> None:
    metrics[names.INFERENCE_DURATION].exponential_histogram.data_points[0].sum = float("inf")


def _finest_scale(metrics: Any, _: Any) -> None:
    metrics[names.INFERENCE_DURATION].exponential_histogram.data_points[0].scale = 21


def _no_sequence(metrics: Any, _: Any) -> None:
    metrics[names.REPORT_SEQUENCE].name = "other"


def _bad_profile(_: Any, message: Any) -> None:
    for pair in message.resource_metrics[0].resource.attributes:
        if pair.key == names.PROFILE:
            pair.value.string_value = "<b>"


def _no_boot(_: Any, message: Any) -> None:
    for pair in message.resource_metrics[0].resource.attributes:
        if pair.key == names.BOOT:
            pair.key = "other"


@pytest.mark.parametrize(
    "change",
    [
        _nan_energy, _negative_energy, _negative_errors, _infinite_total, _finest_scale, _no_sequence,
        _bad_profile, _no_boot,
    ],
)  # fmt: skip
def test_what_the_contract_refuses_is_refused(change: Any) -> None:
    payload = broken(change)
    with pytest.raises(DataError):
        decode_otlp(payload)
    with pytest.raises(DataError):
        read_otlp(payload)
