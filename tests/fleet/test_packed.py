"""A packed histogram holds what the histogram does, and merges as it does."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from edgewright.telemetry.histogram import ExponentialHistogram, merged
from edgewright.telemetry.reading import Durations
from edgewright_fleet.rollout.packed import LARGEST, WIDEST, PackedHistogram, packed

histograms = st.builds(
    ExponentialHistogram,
    scale=st.integers(0, 5),
    zero_count=st.integers(0, 5),
    buckets=st.dictionaries(st.integers(-300, 300), st.integers(0, 1000), max_size=8),
    total=st.floats(0, 1e6),
)


def counted(*, zero_count: int, counts: list[int], **rest: Any) -> Durations:
    return Durations(zero_count=zero_count, counts=tuple(counts), events=zero_count + sum(counts), **rest)


hostile = st.builds(
    counted,
    scale=st.integers(-10, 20),
    zero_count=st.integers(0, 2**64 - 1),
    offset=st.integers(-(2**31), 2**31 - 1),
    counts=st.lists(st.integers(0, 2**64 - 1), max_size=6)
    | st.integers(0, 4096).map(lambda width: [1] * width),
    total=st.floats(0, 1e300),
)
CODEC = TypeAdapter(PackedHistogram)


@given(st.lists(histograms, max_size=5), st.floats(0, 1))
def test_sum_of_packed_histograms_is_the_sum_of_histograms(
    parts: list[ExponentialHistogram], share: float
) -> None:
    kept = packed(ExponentialHistogram(scale=20))
    for part in parts:
        kept = kept.plus(Durations.of(part))
    whole = merged(parts)
    assert kept.count == whole.count
    assert kept.buckets == {index: n for index, n in whole.buckets.items() if n}
    expected = whole.quantile(share)
    assert kept.quantile(share) == expected or (math.isnan(expected) and math.isnan(kept.quantile(share)))


@given(st.lists(hostile, max_size=4))
def test_whatever_a_device_sends_is_kept_in_little_memory_and_survives_json(
    parts: list[Durations],
) -> None:
    kept = PackedHistogram()
    for part in parts:
        kept = kept.plus(part)
        assert len(kept.counts) <= WIDEST
        assert all(count <= LARGEST for count in kept.counts)
    assert CODEC.validate_json(CODEC.dump_json(kept)) == kept
