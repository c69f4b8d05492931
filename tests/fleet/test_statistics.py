"""The sequential tests: their errors under optional stopping, their power, and that any input gives an answer.

Simulations are seeded, and their limits lie four standard errors and more from what is expected.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright_fleet.rollout.statistics import (
    allowed_in_flight,
    failure_test,
    failures_to_go,
    false_stop,
    log_ratio,
    median_exceeds,
    median_interval,
    sign_evidence,
    stop_distribution,
)

HEALTHY, BAD, ALPHA, DEVICES = 0.01, 0.05, 0.01, 1000
shares = st.tuples(st.floats(0.001, 0.3), st.floats(1.5, 3.0)).map(lambda t: (t[0], min(0.95, t[0] * t[1])))
numbers = st.floats(allow_nan=True, allow_infinity=True)


def stopped_at(limits: tuple[int, ...], failing: np.ndarray) -> np.ndarray:
    """Of each row the count of devices at which it is stopped, looked at after every one; 0: never."""
    hit = failing.cumsum(axis=1) >= np.asarray(limits[1:])
    return np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, 0)


def test_healthy_release_that_is_looked_at_after_every_device_is_stopped_less_often_than_alpha() -> None:
    test = failure_test(HEALTHY, BAD, ALPHA, DEVICES)
    runs = 20_000
    failing = np.random.default_rng(3).random((runs, DEVICES)) < HEALTHY
    share = (stopped_at(test.limits, failing) > 0).mean()
    assert share == pytest.approx(test.error, abs=4 * math.sqrt(ALPHA / runs))
    assert 0.009 < test.error <= ALPHA


def test_bad_releases_are_stopped_and_the_worse_the_sooner() -> None:
    test = failure_test(HEALTHY, BAD, ALPHA, DEVICES)
    means = []
    for share in (0.05, 0.1, 0.3, 1.0):
        stopped, alive = stop_distribution(test.limits, share)
        assert stopped.sum() > 0.999
        means.append(float((stopped * np.arange(DEVICES + 1)).sum() + DEVICES * alive.sum()))
    assert means == sorted(means, reverse=True)
    assert [round(mean) for mean in means] == [116, 36, 8, 2]


def test_exact_distribution_is_what_a_simulation_shows() -> None:
    limits = failure_test(0.1, 0.4, 0.05, 40).limits
    stopped, alive = stop_distribution(limits, 0.3)
    assert stopped.sum() + alive.sum() == pytest.approx(1.0)
    seen = stopped_at(limits, np.random.default_rng(5).random((40_000, 40)) < 0.3)
    counts = np.bincount(seen, minlength=41) / 40_000
    assert counts[1:] == pytest.approx(stopped[1:], abs=4 * 0.5 / 200)


@settings(max_examples=40, deadline=None)
@given(shares, st.floats(1e-6, 0.4), st.integers(1, 200))
def test_error_is_at_most_alpha_whatever_the_specification(
    rates: tuple[float, float], alpha: float, devices: int
) -> None:
    healthy, bad = rates
    test = failure_test(healthy, bad, alpha, devices)
    assert len(test.limits) == devices + 1
    assert list(test.limits) == sorted(test.limits)
    assert float(stop_distribution(test.limits, healthy)[0].sum()) <= alpha * (1 + 1e-9)
    # A release that fails less is stopped less.
    better = float(stop_distribution(test.limits, healthy / 2)[0].sum())
    assert better <= float(stop_distribution(test.limits, healthy)[0].sum()) + 1e-12


@settings(max_examples=60, deadline=None)
@given(shares, st.integers(1, 5000), st.data())
def test_more_failures_are_more_evidence_and_never_no_number(
    rates: tuple[float, float], devices: int, data: st.DataObject
) -> None:
    failures = data.draw(st.integers(0, devices - 1))
    less, more = (log_ratio(devices, k, *rates) for k in (failures, failures + 1))
    assert math.isfinite(less)
    assert less < more


def test_devices_beyond_the_exact_ones_add_next_to_nothing_to_the_error() -> None:
    exact, more = (failure_test(HEALTHY, BAD, ALPHA, n) for n in (2000, 6000))
    assert more.limits[:2001] == exact.limits
    assert exact.error <= more.error <= exact.error + 1e-6
    assert more.limit(10**9) == more.limits[-1]


def test_threshold_of_wald_is_never_exceeded() -> None:
    wald = tuple(
        next(k for k in range(n + 2) if k > n or log_ratio(n, k, HEALTHY, BAD) >= -math.log(ALPHA))
        for n in range(1, 300)
    )
    ours = failure_test(HEALTHY, BAD, ALPHA, 299)
    assert all(mine <= theirs for mine, theirs in zip(ours.limits[1:], wald, strict=True))
    assert false_stop((1, *wald), HEALTHY, BAD, -math.log(ALPHA)) < ours.error


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_somebody_may_always_be_asked_and_nobody_beside_the_one_that_decides(to_go: int, passed: int) -> None:
    allowed = allowed_in_flight(to_go, passed)
    assert 1 <= allowed <= 1 + passed // 2
    assert allowed_in_flight(1, passed) == 1
    assert allowed <= allowed_in_flight(to_go + 1, passed)
    assert allowed <= allowed_in_flight(to_go, passed + 1)


def test_failures_to_go_reach_nought_at_a_stop() -> None:
    test = failure_test(HEALTHY, BAD, ALPHA, DEVICES)
    assert failures_to_go(test, 1, 0) == 2
    assert failures_to_go(test, 2, 2) == 0
    assert failures_to_go(test, 2, 50) == 0


# Signs and medians


@given(st.integers(0, 400))
def test_capital_of_the_sign_game_is_fair(count: int) -> None:
    """Under fair signs its expectation is 1: that, and nothing else, is what makes it valid at all times."""
    total = math.fsum(
        math.exp(
            sign_evidence(k, count)
            + math.lgamma(count + 1)
            - math.lgamma(k + 1)
            - math.lgamma(count - k + 1)
            - count * math.log(2)
        )
        for k in range(count + 1)
    )
    assert total == pytest.approx(1.0, rel=1e-9)


def test_capital_of_the_next_step_is_fair_too() -> None:
    for count in (1, 7, 50):
        for k in range(count + 1):
            up, down = (math.exp(sign_evidence(k + step, count + 1)) for step in (1, 0))
            assert (up + down) / 2 == pytest.approx(math.exp(sign_evidence(k, count)))


def heavy(rows: int, columns: int, seed: int) -> np.ndarray:
    """Ratios without a mean: Cauchy, median nought."""
    return np.random.default_rng(seed).standard_cauchy((rows, columns))


@pytest.mark.parametrize("alpha", [0.1, 0.01])
def test_heavy_tails_that_are_looked_at_after_every_device_exceed_their_median_less_often_than_alpha(
    alpha: float,
) -> None:
    runs, devices = 4000, 200
    above = (heavy(runs, devices, 11) > 0).cumsum(axis=1)
    needed = [
        next((k for k in range(n + 1) if sign_evidence(k, n) >= -math.log(alpha)), n + 1)
        for n in range(1, devices + 1)
    ]
    wrong = (above >= np.asarray(needed)).any(axis=1).mean()
    assert wrong < alpha
    # Neither is it idle: a median a little higher is found in nearly all.
    found = ((heavy(runs, devices, 12) + 1 > 0).cumsum(axis=1) >= np.asarray(needed)).any(axis=1).mean()
    assert found > 0.99


def test_interval_holds_the_median_at_all_times_at_once() -> None:
    runs, misses = 300, 0
    for row in heavy(runs, 120, 13):
        intervals = [median_interval(row[:n].tolist(), 0.1) for n in range(1, 121)]
        misses += not all(low <= 0 <= high for low, high in intervals)
    assert misses / runs < 0.1
    assert median_interval(heavy(1, 2000, 14)[0].tolist(), 0.01) == pytest.approx((0, 0), abs=0.25)


@given(st.lists(numbers, max_size=60), numbers, st.floats(1e-9, 0.5))
def test_any_values_give_a_verdict_and_an_ordered_interval(
    values: list[float], limit: float, alpha: float
) -> None:
    assert median_exceeds(values, limit, alpha) in (True, False)
    low, high = median_interval(values, alpha)
    assert low <= high
    assert not math.isnan(low + high) or math.isinf(low) or math.isinf(high)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=80), st.floats(-10, 10), st.floats(1e-6, 0.3))
def test_interval_agrees_with_the_test(values: list[float], limit: float, alpha: float) -> None:
    low, _ = median_interval(values, alpha)
    if low > limit:
        assert median_exceeds(values, limit, alpha / 2)


def test_eighteen_devices_that_agree_are_enough_for_a_metric_of_the_defaults() -> None:
    alpha = 0.01 * 0.02 / 3
    assert not median_exceeds([1.0] * 17, 0.0, alpha)
    assert median_exceeds([1.0] * 18, 0.0, alpha)
    assert median_exceeds([math.nan] * 18, 0.0, alpha)
