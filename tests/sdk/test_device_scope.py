"""Figures read by where they lie are the figures, and a scope that looks alike and is not is read anew."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.metrics.v1.metrics_pb2 import ScopeMetrics

from edgewright.telemetry import names
from edgewright.telemetry.device_scope import KEPT, known_figures, read_device_scope
from edgewright.telemetry.otlp import from_bytes
from edgewright.telemetry.wire import taken_apart
from edgewright_agent.exporter import Exporter

FLOATS = st.floats(allow_nan=False, allow_infinity=False)


def scope(sensor: str, energy_j: float, temperature_c: float, sequence: int) -> bytes:
    exporter = Exporter(fleet="f", device="d", profile="gateway", boot="b")
    exporter.payloads = sequence
    exporter.record_energy(energy_j, sensor)
    exporter.set(names.TEMPERATURE, "Cel", temperature_c, {names.SENSOR: "cpu"})
    (found,) = from_bytes(exporter.collect()).resource_metrics[0].scope_metrics
    data: bytes = found.SerializeToString()
    return data


@given(st.sampled_from(["rapl", "ina3"]), FLOATS, FLOATS, st.integers(0, 2**62))
def test_figures_are_the_same_whether_the_layout_is_known_or_not(
    sensor: str, energy_j: float, temperature_c: float, sequence: int
) -> None:
    data = scope(sensor, energy_j, temperature_c, sequence)
    first = known_figures(data) or read_device_scope(data)
    second = known_figures(data)
    assert first is not None and first == second
    figures, said = first
    assert (figures.sequence, figures.energy_j, figures.temperature_c) == (sequence, energy_j, temperature_c)
    assert figures.dropped is None and said == sensor


def test_a_scope_of_a_release_is_none_of_a_device() -> None:
    message = ScopeMetrics()
    message.metrics.add(name=names.INFERENCE_ERRORS).sum.data_points.add(as_int=1)
    assert read_device_scope(message.SerializeToString()) is None


def test_several_points_of_a_metric_add_up_and_are_read_one_by_one() -> None:
    message = ScopeMetrics()
    energy = message.metrics.add(name=names.ENERGY).sum
    for joules in (1.0, 2.0):
        energy.data_points.add(as_double=joules)
    data = message.SerializeToString()
    found = read_device_scope(data)
    assert found is not None and found[0].energy_j == 3.0
    assert known_figures(data) is None


def test_ever_new_scopes_do_not_fill_the_memory() -> None:
    from edgewright.telemetry import device_scope

    for number in range(2 * KEPT):
        read_device_scope(scope(f"sensor {number}", 1.0, 2.0, 3))
    assert sum(map(len, device_scope._layouts.values())) <= KEPT


@given(st.binary(max_size=60))
def test_what_is_taken_apart_is_as_long_as_it_says_or_refused(data: bytes) -> None:
    try:
        found = taken_apart(data, 0x0A, 0x12)
    except (ValueError, IndexError):
        return
    assert sum(map(len, found)) + 2 * len(found) <= len(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a",
        b"\x0a\x02x",
        b"\x12\x00",
        b"\x0a\x00\x0a\x00",
        b"\x09" + bytes(8),
        b"\x8a\x01\x00",
        b"\x08\x80\x01",
    ],
)
def test_a_message_that_is_cut_short_or_of_other_fields_is_refused(data: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        taken_apart(data, 0x0A, 0x12)
