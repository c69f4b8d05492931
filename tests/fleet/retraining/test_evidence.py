"""What blocks of counts and of means say: they add up, they are fair, they know how uncertain they are."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgewright.telemetry.sketch import expected_psi, population_stability_index
from edgewright_fleet.retraining.triggers.drift_test import DriftTest
from edgewright_fleet.retraining.triggers.evidence import Counts, Means, evidence_of, log_gamma

COUNTS = Counts("classes", 4, 0.1, 0.02)
MEANS = Means("inputs", 2, 0.25, 0.25)
ONE = np.ones(1)
counts = arrays.arrays(np.int64, 4, elements=st.integers(0, 3000)).map(lambda a: a.astype(float))
some = counts.filter(lambda a: a.sum() > 0)


def sums(values: np.ndarray) -> np.ndarray:
    """Of samples by figure, as `Means` has them."""
    return np.concatenate([[len(values)], values.sum(0), (values**2).sum(0)])


@given(st.floats(1e-3, 1e9))
def test_the_logarithm_of_the_gamma_function_is_that_of_the_standard_library(x: float) -> None:
    assert float(log_gamma(np.array(x))) == pytest.approx(math.lgamma(x), rel=1e-9, abs=1e-7)


@given(some, counts, counts)
def test_blocks_that_were_merged_say_what_they_say_one_by_one(
    before: np.ndarray, a: np.ndarray, b: np.ndarray
) -> None:
    """The ratio of the second given the first, times that of the first, is that of both."""
    both = COUNTS.log_ratio(before, before + a + b, ONE)
    # From sequential prediction, one block after the other, by both urns:
    share = (before + 0.5) / (before.sum() + 2)
    strength = 3 / (4 * 0.1**2) - 1
    steps = 0.0
    new, old = strength * share, before + 0.5
    for block in (a, b):
        steps += _urn(block, new) - _urn(block, old)
        new, old = new + block, old + block
    assert float(both) == pytest.approx(steps, abs=1e-5, rel=1e-7)


def _urn(block: np.ndarray, urn: np.ndarray) -> float:
    ratio = math.lgamma(urn.sum()) - math.lgamma(urn.sum() + block.sum())
    return ratio + sum(math.lgamma(u + x) - math.lgamma(u) for u, x in zip(urn, block, strict=True))


@given(some, st.integers(1, 40))
def test_data_that_is_the_same_is_never_evidence_of_a_change(before: np.ndarray, times: int) -> None:
    before = before * 1000 / before.sum()
    assert float(COUNTS.log_ratio(before, before * (1 + times), ONE)) < 6, "an alarm takes 12"
    assert float(COUNTS.effect(before, before * times, ONE)) == pytest.approx(0.0, abs=0.01)


def test_the_ratio_is_a_fair_game_for_data_that_does_not_change() -> None:
    chance = np.random.default_rng(3)
    shares = chance.dirichlet(np.full(4, 0.5), 200_000)  # the prior that the urn has
    before = chance.multinomial(60, shares).astype(float)
    ratios = np.exp(COUNTS.log_ratio(before, before + chance.multinomial(20, shares), ONE))
    assert abs(ratios.mean() - 1) < 5 * ratios.std() / math.sqrt(len(ratios))


def test_the_ratio_of_means_is_a_fair_game_where_the_variance_is_known() -> None:
    chance = np.random.default_rng(4)
    n, m, devices = 50, 15, 200_000  # so few that the ratio's variance is finite
    old = chance.standard_normal((devices, 2)) / math.sqrt(n)
    new = chance.standard_normal((devices, 2)) / math.sqrt(m)
    before = np.concatenate([np.full((devices, 1), n), n * old, n * (1 + old**2)], axis=1)
    after = np.concatenate([np.full((devices, 1), m), m * new, m * (1 + new**2)], axis=1)
    ratios = np.exp(MEANS.log_ratio(before, before + after, np.ones((devices, 2))))
    assert abs(ratios.mean() - 1) < 5 * ratios.std() / math.sqrt(devices)


@given(st.integers(1, 30), st.floats(0.0, 0.2), st.floats(0.0, 0.2))
def test_evidence_grows_with_the_shift(thousands: int, a: float, b: float) -> None:
    low, high = sorted((a, b))
    before = np.full(4, 5000.0)

    def evidence(shift: float) -> float:
        shares = 0.25 + shift * np.array([1, 1, -1, -1]) / 2
        return float(COUNTS.log_ratio(before, before + 1000 * thousands * shares, ONE))

    assert evidence(low) <= evidence(high) + 1e-6


@given(some, some, st.floats(1, 50))
def test_what_is_over_dispersed_says_less(before: np.ndarray, after: np.ndarray, dispersion: float) -> None:
    plain = float(COUNTS.effect(before, after, ONE))
    assert float(COUNTS.effect(before, after, np.array([dispersion]))) <= plain + 1e-12


@given(some, some)
def test_the_effect_is_the_index_of_the_contract_less_what_chance_gives(
    before: np.ndarray, after: np.ndarray
) -> None:
    index = population_stability_index(after.astype(int).tolist(), before.astype(int).tolist())
    chance = expected_psi(int((before + after > 0).sum()), int(after.sum()), int(before.sum()))
    assert float(COUNTS.effect(before, after, ONE)) == pytest.approx(max(index - chance, 0.0), abs=1e-9)


def test_blocks_that_differ_as_chance_has_it_show_no_dispersion_and_repeated_frames_show_theirs() -> None:
    chance = np.random.default_rng(5)
    for repeats in (1, 6):
        blocks = repeats * chance.multinomial(1200 // repeats, [0.4, 0.3, 0.2, 0.1], 4000).astype(float)
        squares, freedom = COUNTS.differences(blocks[:-1], blocks[1:])
        assert squares.sum() / freedom.sum() == pytest.approx(repeats, rel=0.05)
        values = np.repeat(chance.standard_normal((4000, 1200 // repeats, 2)), repeats, axis=1)[:500]
        rows = np.array([sums(v) for v in values])
        squares, freedom = MEANS.differences(rows[:-1], rows[1:])
        assert (squares.sum(0) / freedom.sum(0)) == pytest.approx(repeats, rel=0.25)


def test_an_empty_block_says_nothing() -> None:
    before = np.array([5.0, 5, 5, 5])
    assert float(COUNTS.log_ratio(before, before, ONE)) == pytest.approx(0.0, abs=1e-7)
    squares, freedom = COUNTS.differences(before, np.zeros(4))
    assert squares.sum() == 0 and freedom.sum() == 0
    assert float(MEANS.log_ratio(sums(np.ones((3, 2))), sums(np.ones((3, 2))), np.ones(2))) == 0.0


def test_an_input_that_never_varied_and_now_does_is_a_change_and_no_error() -> None:
    still, moved = sums(np.zeros((5000, 2))), sums(np.full((1200, 2), 0.1))
    assert np.isfinite(MEANS.log_ratio(still, still + moved, np.ones(2)))
    assert float(MEANS.effect(still, moved, np.ones(2))) > 1000


def test_each_stream_has_its_evidence_by_its_width() -> None:
    test = DriftTest()
    assert evidence_of(test, "classes", 7) == Counts("classes", 7, 0.1, 0.02)
    assert evidence_of(test, "inputs", 13) == Means("inputs", 6, 0.25, 0.25)
