"""The detector: no alarm where nothing changes, soon where it does, and its state does not grow."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from edgewright_fleet.retraining.triggers.detector import LOOK_BACK, Alarm, Detector, _followed
from edgewright_fleet.retraining.triggers.drift_test import BLOCKS_PER_YEAR, DriftTest
from edgewright_fleet.retraining.triggers.evidence import evidence_of

UNIFORM = np.full(10, 0.1)
SPREAD = UNIFORM * np.array([1.2] * 5 + [0.8] * 5)


def detector(devices: int, **test: Any) -> Detector:
    settings = DriftTest(**test)
    return Detector(settings, devices, {"classes": evidence_of(settings, "classes", 10)}, {"classes": 10})


def run(
    watch: Detector, chance: np.random.Generator, shares: np.ndarray, steps: int, repeat: int = 1
) -> list[Alarm]:
    devices = len(watch.blocks)
    found = []
    for _ in range(steps):
        blocks = repeat * chance.multinomial(1200 // repeat, shares, devices).astype(float)
        found += watch.advance({"classes": blocks}, np.ones(devices, bool))
    return found


def test_a_tenth_of_the_answers_that_moves_is_seen_within_two_thousand_inferences_on_average() -> None:
    chance, watch = np.random.default_rng(1), detector(100)
    assert run(watch, chance, UNIFORM, 100) == []
    seen: dict[int, int] = {}
    for step in range(1, 8):
        for alarm in run(watch, chance, SPREAD, 1):
            seen.setdefault(alarm.device, step)
            assert alarm.start in (100, 101) and 0.02 <= alarm.effect < 0.1
    assert len(seen) == 100
    # A change comes half a sketch later than its block began, on average.
    assert np.mean(list(seen.values())) * 1200 - 600 < 2000


@pytest.mark.parametrize("repeat", [1, 10])
def test_devices_that_do_not_change_raise_no_more_alarms_than_was_said(repeat: int) -> None:
    """At a hundred times the rate, so that there is something to count, and without a least effect."""
    chance, watch = np.random.default_rng(2), detector(50, least_psi=0.0, device_years=0.01)
    found = run(watch, chance, UNIFORM, 800, repeat)
    most = 0.6 * 50 * 800 / BLOCKS_PER_YEAR / 0.01
    assert most > 20
    assert 0 < len(found) < most


def test_repeated_frames_that_were_taken_for_independent_ones_would_raise_many() -> None:
    chance, watch = np.random.default_rng(2), detector(20)
    watch.streams["classes"].dispersion = lambda: np.ones((20, 1))  # type: ignore[method-assign]
    assert len(run(watch, chance, UNIFORM, 300, repeat=10)) > 20


def test_after_an_alarm_the_new_data_is_the_reference_and_the_way_back_is_a_change() -> None:
    chance, watch = np.random.default_rng(3), detector(10)
    turned = np.roll(np.array([0.55] + [0.05] * 9), 1)
    alarms = run(watch, chance, turned, 40) + run(watch, chance, UNIFORM, 60) + run(watch, chance, turned, 60)
    by_device = [[a.start for a in alarms if a.device == device] for device in range(10)]
    assert by_device == [[40, 100]] * 10


def test_a_change_that_is_certain_and_small_is_no_alarm_and_hides_no_great_one() -> None:
    chance, watch = np.random.default_rng(4), detector(10)
    small = UNIFORM * np.array([1.05] * 5 + [0.95] * 5)  # an index of 0.0025
    assert run(watch, chance, UNIFORM, 100) + run(watch, chance, small, 120) == []
    assert (watch.streams["classes"].log_sum > DriftTest().threshold("classes")).all(), "certain it is"
    found = run(watch, chance, SPREAD, 4)
    assert {a.device for a in found} == set(range(10)) and all(a.start >= 219 for a in found)


def test_a_device_without_a_block_is_left_as_it_is() -> None:
    chance, watch, alone = np.random.default_rng(5), detector(2), detector(1)
    for step in range(60):
        block = chance.multinomial(1200, UNIFORM if step < 40 else SPREAD).astype(float)
        present = np.array([True, step % 3 == 0])
        both = watch.advance({"classes": np.array([block, block * present[1]])}, present)
        one = alone.advance({"classes": block[None]}, np.ones(1, bool))
        assert [a for a in both if a.device == 0] == one
        assert not [a for a in both if a.device == 1 and not present[1]]
    total, blocks = watch.streams["classes"].total.sum(1), watch.blocks
    assert (total == 1200 * blocks).all() and blocks[0] == 20


def test_a_reference_from_outside_is_what_the_first_blocks_are_held_against() -> None:
    chance, watch = np.random.default_rng(6), detector(20, settle_blocks=3)
    watch.set_reference({"classes": np.tile(UNIFORM * 5000, (20, 1))})
    found = run(watch, chance, SPREAD, 12)
    assert {a.device for a in found} == set(range(20)) and {a.start for a in found} <= {0, 1, 2}


def test_a_small_reference_is_believed_little() -> None:
    """Of 40 devices with 300 samples of a reference that nothing but chance sets apart, none is called changed."""
    chance, watch = np.random.default_rng(7), detector(40, settle_blocks=3)
    watch.set_reference({"classes": chance.multinomial(300, UNIFORM, 40).astype(float)})
    assert run(watch, chance, UNIFORM, 300) == []


@given(st.integers(0, 3000))
def test_a_start_that_is_followed_no_more_never_is_again(start: int) -> None:
    kept = [_followed(start, age) for age in range(LOOK_BACK + 8)]
    assert kept == sorted(kept, reverse=True) and kept[0] and not kept[LOOK_BACK]


@settings(max_examples=20)
@given(st.integers(300, 2000))
def test_few_starts_are_followed_at_a_time(step: int) -> None:
    followed = [age for age in range(LOOK_BACK) if _followed(step - age, age)]
    assert len(followed) <= 30 and followed[:8] == list(range(8))
    assert all(b <= 1.6 * a + 2 for a, b in itertools.pairwise(followed))


@pytest.mark.parametrize("weights", [{}, {"classes": 0.0}, {"classes": 0.9, "inputs": 0.2}])
def test_weights_that_are_no_shares_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="weights"):
        DriftTest.model_validate({"weights": weights})


@given(st.floats(0.01, 100), st.floats(0.01, 100))
def test_rarer_false_alarms_need_more_evidence(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert DriftTest(device_years=low).threshold("classes") <= DriftTest(device_years=high).threshold(
        "classes"
    )
