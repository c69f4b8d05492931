from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.telemetry.histogram import merged
from edgewright.telemetry.window import TelemetryWindow, decode_otlp
from edgewright.twin import ReleaseReference
from edgewright_agent.exporter import Exporter, model_attributes

OLD = ReleaseReference(name="sorter", version="1.0.0", digest=f"sha256:{'1' * 64}")
NEW = ReleaseReference(name="sorter", version="1.1.0", digest=f"sha256:{'2' * 64}")


@pytest.fixture
def exporter() -> Exporter:
    return Exporter(fleet="plant", device="line-3", profile="x86-64-gateway", boot="b0")


def only(windows: tuple[TelemetryWindow, ...]) -> TelemetryWindow:
    (window,) = windows
    return window


def test_a_window_says_who_measured_what(exporter: Exporter) -> None:
    exporter.record(model_attributes(OLD), 0.002)
    exporter.record_error(model_attributes(OLD), RuntimeError("out of range"))
    exporter.record_error(model_attributes(OLD), ValueError("odd"))
    exporter.record_energy(1.5, "rapl package")
    exporter.record_energy(0.5, "rapl package")
    window = only(decode_otlp(exporter.collect()))
    assert (window.fleet, window.device, window.profile) == ("plant", "line-3", "x86-64-gateway")
    assert (window.boot, window.sequence) == ("b0", 0)
    assert (window.model, window.version, window.release) == (OLD.name, OLD.version, OLD.digest)
    assert (window.latency.count, window.errors) == (1, 2)
    assert (window.energy_j, window.energy_sensor) == (2.0, "rapl package")
    assert 0 < window.start_ns <= window.end_ns


def test_without_a_sensor_the_energy_is_absent(exporter: Exporter) -> None:
    exporter.record(model_attributes(OLD), 0.002)
    assert only(decode_otlp(exporter.collect())).energy_j is None


def test_a_release_that_only_fails_has_a_window_too(exporter: Exporter) -> None:
    exporter.record_error(model_attributes(OLD), RuntimeError())
    window = only(decode_otlp(exporter.collect()))
    assert (window.latency.count, window.errors) == (0, 1)


def test_each_payload_holds_its_own_period_only_and_the_sequence_grows(exporter: Exporter) -> None:
    counts = []
    for inferences in (3, 0, 2):
        for _ in range(inferences):
            exporter.record(model_attributes(OLD), 0.001)
        counts.append([(w.sequence, w.latency.count) for w in decode_otlp(exporter.collect())])
    assert counts == [[(0, 3)], [], [(2, 2)]]


def test_a_payload_that_spans_a_switch_gives_a_window_for_each_release(exporter: Exporter) -> None:
    exporter.record(model_attributes(OLD), 0.001)
    exporter.record(model_attributes(NEW), 0.002)
    exporter.record(model_attributes(NEW), 0.002)
    windows = decode_otlp(exporter.collect())
    assert {w.version: w.latency.count for w in windows} == {"1.0.0": 1, "1.1.0": 2}


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=40), min_size=1, max_size=4))
def test_durations_come_out_as_they_went_in_within_the_error_of_a_bucket(periods: list[list[float]]) -> None:
    exporter = Exporter(fleet="plant", device="line-3", profile="x86-64-gateway", boot="b0")
    attributes = model_attributes(OLD)
    parts = []
    for durations in periods:
        for seconds in durations:
            exporter.record(attributes, seconds)
        window = only(decode_otlp(exporter.collect()))
        assert window.latency.count == len(durations)
        assert window.latency.total == pytest.approx(sum(durations))
        parts.append(window.latency)
    exporter.close()
    recorded = sorted(seconds for durations in periods for seconds in durations)
    whole = merged(parts)
    assert whole.count == len(recorded)
    largest_error = 2.0 ** (2.0**-whole.scale) - 1
    for share in (0.0, 0.5, 0.9, 1.0):
        exact = recorded[math.floor(share * (len(recorded) - 1))]
        assert whole.quantile(share) == pytest.approx(exact, rel=largest_error)
