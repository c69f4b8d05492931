"""What may be concluded from two models on the same samples: coverage, symmetry, weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright_converters.statistics import paired_difference
from edgewright_fleet.retraining.promotion.paired import Tally, mcnemar_p

CELLS = ((False, False), (False, True), (True, False), (True, True))
weighted = st.lists(
    st.tuples(st.booleans(), st.booleans(), st.floats(0.001, 1).map(lambda p: 1 / p)), min_size=1, max_size=80
)


def tally_of(samples: Sequence[tuple[bool, bool, float]]) -> Tally:
    tally = Tally()
    for serving, candidate, weight in samples:
        tally.add(serving, candidate, weight)
    return tally


@given(*[st.integers(0, 40)] * 3, st.integers(1, 40))
def test_equal_weights_give_the_interval_that_the_gate_uses(
    both: int, lost: int, gained: int, neither: int
) -> None:
    tally = Tally()
    for cell, count in zip(CELLS, (neither, gained, lost, both), strict=True):
        for _ in range(count):
            tally.add(*cell)
    found, expected = (
        tally.change(),
        paired_difference(both=both, lost=lost, gained=gained, neither=neither),
    )
    assert (tally.lost, tally.gained) == (lost, gained)
    assert found.value == pytest.approx(expected.value, abs=1e-12)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(weighted)
def test_swapping_the_models_mirrors_the_result(samples: list[tuple[bool, bool, float]]) -> None:
    one, other = tally_of(samples), tally_of([(b, a, w) for a, b, w in samples])
    change, mirrored = one.change(), other.change()
    assert change.value == pytest.approx(-mirrored.value, abs=1e-9)
    assert (change.low, change.high) == pytest.approx((-mirrored.high, -mirrored.low), abs=1e-9)
    assert astuple(one.serving()) == pytest.approx(astuple(other.candidate()), abs=1e-12)
    assert mcnemar_p(one.lost, one.gained) == mcnemar_p(other.lost, other.gained)


@given(weighted, st.floats(1, 4))
def test_figures_lie_in_their_intervals_and_a_higher_level_is_wider(
    samples: list[tuple[bool, bool, float]], more: float
) -> None:
    tally = tally_of(samples)
    for figure, least in ((tally.change(), -1.0), (tally.serving(), 0.0), (tally.candidate(), 0.0)):
        assert least <= figure.low <= figure.value + 1e-12 <= figure.high + 2e-12 <= 1 + 3e-12
    plain, wide = tally.change(), tally.change(1.96 * more)
    assert wide.low <= plain.low + 1e-6 and plain.high <= wide.high + 1e-6


@given(weighted, st.sampled_from([0.25, 0.5, 2.0, 8.0]))
def test_only_the_ratios_of_weights_count(samples: list[tuple[bool, bool, float]], factor: float) -> None:
    one, other = tally_of(samples), tally_of([(a, b, w * factor) for a, b, w in samples])
    assert one.change().low == pytest.approx(other.change().low, abs=1e-9)


@given(st.lists(st.tuples(st.booleans(), st.floats(1, 1000)), min_size=1, max_size=60))
def test_models_that_are_right_together_are_never_apart(right: list[tuple[bool, float]]) -> None:
    change = tally_of([(one, one, weight) for one, weight in right]).change()
    assert change.low < 0 < change.high or change.low == change.high == 0


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_sum_of_the_binomial_tail(lost: int, gained: int) -> None:
    n = lost + gained
    exact = min(1.0, 2 * sum(comb(n, k) for k in range(min(lost, gained) + 1)) / 2**n)
    assert mcnemar_p(lost, gained) == pytest.approx(exact, rel=1e-9)


def test_mcnemar_of_millions_is_found_at_once() -> None:
    # The normal approximation, z = (gained - lost) / sqrt(n), gives 0.4795.
    assert mcnemar_p(1_000_000, 1_001_000) == pytest.approx(0.4795, abs=1e-3)


HARD = ((0.3, 0.15, 0.1, 0.45), (0.1, 0.5, 0.05, 0.35), (0.3, 0.1, 0.1, 0.5))
EASY = ((0.02, 0.01, 0.005, 0.965), (0.02, 0.05, 0.005, 0.925), (0.02, 0.001, 0.001, 0.978))


@pytest.mark.parametrize(
    ("stream", "hard_share", "p_hard", "p_easy"),
    [(600, 0.2, 1.0, 1.0), (2000, 0.1, 0.5, 0.05), (5000, 0.1, 1.0, 0.01)],
)
@pytest.mark.parametrize("case", range(3))
def test_the_interval_holds_what_is_true_of_all_inputs_19_times_in_20(
    stream: int, hard_share: float, p_hard: float, p_easy: float, case: int
) -> None:
    """Hard inputs are selected more often, and the change of accuracy over all inputs is asked for."""
    rng = np.random.default_rng(20 + case)
    true = hard_share * (HARD[case][1] - HARD[case][2]) + (1 - hard_share) * (EASY[case][1] - EASY[case][2])
    above = below = 0
    runs = 200
    for _ in range(runs):
        hard = int(rng.binomial(stream, hard_share))
        tally = Tally()
        for inputs, p, cells in ((hard, p_hard, HARD[case]), (stream - hard, p_easy, EASY[case])):
            for cell, count in zip(CELLS, rng.multinomial(rng.binomial(inputs, p), cells), strict=True):
                for _ in range(count):
                    tally.add(*cell, 1 / p)
        change = tally.change()
        above, below = above + (change.low > true), below + (change.high < true)
    # A standard error of 1.5 % at 200 runs; each side should miss 2.5 % at most.
    assert above / runs <= 0.06 and below / runs <= 0.06
    assert (above + below) / runs <= 0.08


def test_unweighted_hard_examples_would_give_another_answer_than_the_weighted_ones() -> None:
    # Worse on hard inputs, a tenth of all; better on easy ones, which are selected a hundred times less often.
    weighted_, plain = Tally(), Tally()
    for cell, count, weight in (
        ((True, False), 300, 1.0),
        ((True, True), 700, 1.0),
        ((False, True), 30, 100.0),
        ((True, True), 60, 100.0),
    ):
        for _ in range(count):
            weighted_.add(*cell, weight)
            plain.add(*cell)
    assert plain.change().high < 0
    assert weighted_.change().low > 0
