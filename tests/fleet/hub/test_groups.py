"""Merged figures, exactly: whatever the order, the minute or the scale in which windows come."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.telemetry.histogram import ExponentialHistogram, merged
from edgewright.telemetry.reading import Durations, Reading, read_otlp
from edgewright_fleet.hub import compact
from edgewright_fleet.hub.groups import Group
from edgewright_fleet.hub.metrics import HIGHEST, LOWEST, SCALE, _histogram
from fleet.hub.conftest import Payloads


def counted(*, zero_count: int, counts: tuple[int, ...], **rest: Any) -> Durations:
    return Durations(zero_count=zero_count, counts=counts, events=zero_count + sum(counts), **rest)


durations = st.builds(
    counted,
    scale=st.integers(0, 8),
    zero_count=st.integers(0, 5),
    offset=st.integers(-300, 300),
    counts=st.lists(st.integers(0, 9), max_size=12).map(tuple),
    total=st.integers(0, 100).map(float),
)


def window(latency: Durations) -> Reading:
    (reading,) = read_otlp(Payloads("f", "d").window([0.01], errors=1, energy_j=2.0))
    return reading._replace(latency=latency)


def same(one: ExponentialHistogram, two: ExponentialHistogram) -> bool:
    return (one.buckets, one.zero_count, one.total) == (two.buckets, two.zero_count, two.total)


@given(st.lists(st.tuples(durations, st.integers(0, 20)), max_size=12))
def test_a_group_is_exactly_its_windows_merged(arrivals: list[tuple[Durations, int]]) -> None:
    arrivals.sort(key=lambda arrival: arrival[1])
    group = Group("p", "r")
    for latency, minute in arrivals:
        group.add(window(latency), minute * 60.0)
    now = arrivals[-1][1] if arrivals else 0
    total = group.since_start()
    # A histogram without a value says nothing of the scale.
    parts = [latency.histogram() for latency, _ in arrivals if any(latency.counts)]
    zeros = sum(latency.zero_count for latency, _ in arrivals)
    assert total.latency().buckets == merged(parts).buckets or not parts
    assert total.zeros == zeros
    assert total.errors == total.windows == len(arrivals)
    recent = group.recent(now * 60.0 + 59)
    inside = [latency for latency, minute in arrivals if minute > now - 5]
    assert recent.windows == len(inside)
    assert recent.inferences == sum(latency.events for latency in inside)


@given(durations)
def test_durations_survive_the_store(latency: Durations) -> None:
    assert same(compact.from_bytes(compact.to_bytes(latency)), latency.histogram())


def test_a_count_that_no_device_reaches_is_refused() -> None:
    with pytest.raises(OverflowError):
        compact.to_bytes(Durations(counts=(1 << 40,)))


@given(durations)
def test_the_buckets_for_prometheus_grow_and_hold_every_inference(latency: Durations) -> None:
    histogram = latency.histogram()
    samples = list(_histogram({}, histogram))
    counts = [value for suffix, _, value in samples if suffix == "_bucket"]
    assert counts == sorted(counts) and counts[-1] == histogram.count
    for (suffix, labels, value), bound in zip(samples, range(LOWEST, HIGHEST + 1), strict=False):
        assert suffix == "_bucket" and float(labels["le"]) == pytest.approx(
            2.0 ** (bound / (1 << SCALE)), rel=1e-5
        )
        below = histogram.zero_count + sum(
            n
            for i, n in histogram.buckets.items()
            if (i + 1) / (1 << histogram.scale) <= bound / (1 << SCALE)
        )
        assert value == below
