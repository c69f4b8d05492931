from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.artifact.manifest import Difference, GateCheck
from edgewright_converters.accuracy_gate import change_verdict
from edgewright_converters.statistics import (
    REASONABLE_SAMPLES,
    median_interval,
    median_interval_in_turn,
    paired_difference,
    proportion,
    samples_to_decide_difference,
    samples_to_decide_share,
)

cells = st.integers(0, 500)


def table(both: int, lost: int, gained: int, neither: int) -> Difference:
    return paired_difference(both=both, lost=lost, gained=gained, neither=neither)


@given(st.integers(1, 2000), st.data())
def test_interval_holds_the_share_and_shrinks_with_samples(samples: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, samples))
    few, many = proportion(hits, samples), proportion(hits * 4, samples * 4)
    assert few.low <= few.value <= few.high
    assert many.high - many.low <= few.high - few.low + 1e-12


def test_wilson_interval_is_the_published_one() -> None:
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I: 81 of 263.
    interval = proportion(81, 263)
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.2553, 0.3662)


@given(cells, cells, cells, st.integers(1, 500))
def test_paired_difference_is_within_its_interval_and_antisymmetric(
    both: int, lost: int, gained: int, neither: int
) -> None:
    one, other = table(both, lost, gained, neither), table(both, gained, lost, neither)
    assert one.low - 1e-9 <= one.value <= one.high + 1e-9
    assert abs(one.value + other.value) < 1e-12
    assert abs(one.low + other.high) < 1e-9


@given(cells, cells, cells, st.integers(1, 500), st.integers(2, 10))
def test_more_samples_of_the_same_kind_narrow_the_difference(
    both: int, lost: int, gained: int, neither: int, times: int
) -> None:
    few = table(both, lost, gained, neither)
    many = table(both * times, lost * times, gained * times, neither * times)
    assert many.high - many.low <= few.high - few.low + 1e-9


@given(cells, cells, cells, st.integers(1, 500), st.floats(0, 20), st.floats(0, 20))
def test_a_wider_limit_never_turns_a_pass_into_a_fail(
    both: int, lost: int, gained: int, neither: int, one: float, other: float
) -> None:
    change = table(both, lost, gained, neither)
    order = ["fail", "inconclusive", "pass"]
    narrow, wide = (change_verdict(change, limit) for limit in sorted((one, other)))
    assert order.index(narrow) <= order.index(wide)
    held, missed = change.low >= -one / 100, change.high < -one / 100
    assert not (held and missed)
    assert change_verdict(change, one) == ("pass" if held else "fail" if missed else "inconclusive")


@given(cells, cells, cells, st.integers(1, 500), st.floats(0, 20))
def test_samples_asked_for_are_more_than_were_seen(
    both: int, lost: int, gained: int, neither: int, limit: float
) -> None:
    change = table(both, lost, gained, neither)
    needed = samples_to_decide_difference(change, -limit / 100)
    assert needed is None or change.samples < needed <= REASONABLE_SAMPLES


def test_no_reasonable_number_decides_a_difference_at_the_limit() -> None:
    assert samples_to_decide_difference(table(900, 20, 10, 70), -0.01) is None
    assert samples_to_decide_share(proportion(10, 1000), 0.01) is None
    assert samples_to_decide_share(proportion(20, 1000), 0.01) is None


def test_shares_that_agree_more_often_need_fewer_samples() -> None:
    needed = [samples_to_decide_share(proportion(changed, 100), 0.2) for changed in (0, 5, 10, 15)]
    assert all(n is not None for n in needed)
    assert needed == sorted(needed, key=lambda n: n or 0)
    # Wilson's upper end for none of n is z² / (n + z²).
    none_changed = samples_to_decide_share(proportion(0, 50), 0.01)
    assert none_changed is not None
    assert proportion(0, none_changed).high <= 0.01 < proportion(0, none_changed - 2).high


@pytest.mark.parametrize(
    ("p_lost", "p_gained", "p_neither", "limit"),
    [(0.01, 0.01, 0.1, -0.01), (0.03, 0.005, 0.2, -0.01), (0.02, 0.015, 0.05, -0.02)],
)
def test_samples_asked_for_decide_it_four_times_in_five(
    p_lost: float, p_gained: float, p_neither: float, limit: float
) -> None:
    seen = 1000
    lost, gained, neither = (round(p * seen) for p in (p_lost, p_gained, p_neither))
    change = table(seen - lost - gained - neither, lost, gained, neither)
    needed = samples_to_decide_difference(change, limit)
    assert needed is not None
    rng = np.random.default_rng(7)
    shares = [1 - p_lost - p_gained - p_neither, p_lost, p_gained, p_neither]
    drawn = [table(*map(int, rng.multinomial(needed, shares))) for _ in range(400)]
    decided = sum(change_verdict(one, -limit * 100) != "inconclusive" for one in drawn)
    assert decided / len(drawn) > 0.75


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=200))
def test_median_lies_in_its_interval(values: list[float]) -> None:
    median, low, high = median_interval(values)
    assert low <= median <= high
    assert abs(median - float(np.median(values))) < 1e-12


def test_median_interval_covers_the_median_of_skewed_times() -> None:
    rng = np.random.default_rng(3)
    runs = [median_interval(rng.exponential(size=51).tolist()) for _ in range(400)]
    assert sum(low <= np.log(2) <= high for _, low, high in runs) / 400 > 0.93


def test_neighbours_that_are_alike_widen_the_interval_of_times_taken_in_turn() -> None:
    rng = np.random.default_rng(3)

    def covered(interval: Callable[[Sequence[float]], tuple[float, float, float]]) -> float:
        hits = 0
        for _ in range(200):
            series = np.convolve(rng.standard_normal(4000), np.ones(40), "valid").tolist()
            _, low, high = interval(series)
            hits += low <= 0 <= high
        return hits / 200

    assert covered(median_interval) < 0.5
    assert covered(median_interval_in_turn) > 0.9


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=60))
def test_median_of_values_taken_in_turn_lies_in_its_interval_too(values: list[float]) -> None:
    median, low, high = median_interval_in_turn(values)
    assert low <= median <= high and median == median_interval(values)[0]


def test_a_check_without_words_is_not_one() -> None:
    with pytest.raises(ValueError, match="says"):
        GateCheck.model_validate({"name": "speed", "verdict": "pass", "unit": "x", "how": "predicted"})
