from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from edgewright.telemetry.sequences import MAX_RANGES, Ranges, missing, received

sequences = st.lists(st.integers(0, 60), max_size=80)


def gathered(arrivals: list[int]) -> Ranges:
    ranges: Ranges = ()
    for sequence in arrivals:
        ranges = received(ranges, sequence)
    return ranges


@given(sequences, st.integers(0, 70))
def test_what_is_missing_is_what_did_not_arrive(arrivals: list[int], payloads: int) -> None:
    gaps = {s for first, last in missing(gathered(arrivals), payloads) for s in range(first, last + 1)}
    assert gaps == set(range(payloads)) - set(arrivals)


@given(sequences, st.integers(0, 60))
def test_a_sequence_is_new_once(arrivals: list[int], sequence: int) -> None:
    ranges = gathered(arrivals)
    assert (received(ranges, sequence) is ranges) == (sequence in arrivals)


@given(st.lists(st.integers(0, 10**9), max_size=200))
def test_what_is_kept_is_bounded_and_never_calls_a_repeat_new(arrivals: list[int]) -> None:
    ranges = gathered(arrivals)
    assert len(ranges) <= MAX_RANGES
    assert all(b[0] - a[1] > 1 for a, b in itertools.pairwise(ranges))
    assert all(received(ranges, sequence) is ranges for sequence in arrivals)
