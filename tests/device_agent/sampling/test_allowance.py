"""The budgets: what they allow, and that the probabilities which go with the samples are right."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.contract import from_json, to_json
from edgewright_agent.sampling.allowance import (
    CREDIT_HOURS,
    Ledger,
    chances,
    inclusion,
    later,
    per_hour,
    spent,
)

levels = st.floats(-30, 30)
ledgers = st.builds(
    Ledger,
    hard=levels,
    uniform=levels,
    as_of_s=st.floats(0, 4e9),
    day=st.just("2026-01-01"),
    day_bytes=st.integers(0, 2**40),
)


def day(hours: float, *, rate_hz: float, hard_share: float, samples_per_hour: float, seed: int) -> list[bool]:
    """Which kind each sample is of, True for hard, of a device that was on for some hours."""
    chance, taken = random.Random(seed), []
    ledger = later(Ledger(), 0.0, per_hour=samples_per_hour, uniform_share=0.1)
    for step in range(int(hours * 3600 * rate_hz)):
        hard = chance.random() < hard_share
        ledger = later(ledger, step / rate_hz, per_hour=samples_per_hour, uniform_share=0.1)
        by_chance, as_hard = chances(ledger, hard=hard, uniform_share=0.1)
        uniform = chance.random() < by_chance
        if uniform or chance.random() < as_hard:
            ledger = spent(ledger, uniform=uniform, size=1)
            taken.append(not uniform)
    return taken


@pytest.mark.parametrize(("rate_hz", "hard_share"), [(4.0, 1.0), (1.0, 0.3), (0.5, 0.02)])
def test_as_many_are_kept_as_an_hour_allows_however_fast_inputs_come(
    rate_hz: float, hard_share: float
) -> None:
    hours, wanted = 5.0, 20.0
    kept = day(hours, rate_hz=rate_hz, hard_share=hard_share, samples_per_hour=wanted, seed=1)
    # The overdraft is the logarithm of how many come for one that is kept, and chance around it.
    most = hours * wanted + 2 * math.log(rate_hz * 3600 / wanted) + 10 + wanted * CREDIT_HOURS
    assert 0.7 * hours * min(wanted, 2 + rate_hz * 3600 * hard_share) <= len(kept) <= most
    assert 0.05 <= kept.count(False) / len(kept) <= 0.25


def test_rare_hard_inputs_are_all_kept() -> None:
    kept = day(10.0, rate_hz=0.5, hard_share=0.002, samples_per_hour=20.0, seed=2)
    assert kept.count(True) == pytest.approx(36, abs=20)


def test_weights_estimate_what_the_device_saw() -> None:
    """Horvitz and Thompson's sum of inverse probabilities, over days whose share of hard inputs changes."""
    chance = random.Random(3)
    ratios = []
    for _ in range(12):
        ledger, seen, estimated = Ledger(), 0, 0.0
        for step in range(10_000):
            hard = chance.random() < (0.5 if 3_000 < step < 5_000 else 0.02)
            seen += hard
            ledger = later(ledger, step * 2.0, per_hour=30.0, uniform_share=0.1)
            by_chance, as_hard = chances(ledger, hard=hard, uniform_share=0.1)
            uniform = chance.random() < by_chance
            if uniform or chance.random() < as_hard:
                ledger = spent(ledger, uniform=uniform, size=1)
                estimated += hard / inclusion(by_chance, as_hard, 1.0)
        ratios.append(estimated / seen)
    mean = sum(ratios) / len(ratios)
    error = (sum((ratio - mean) ** 2 for ratio in ratios) / len(ratios) ** 2) ** 0.5
    assert abs(mean - 1) < 4 * error
    assert error < 0.1


@given(ledgers, st.floats(0, 4e9), st.floats(1e-3, 1e5), st.floats(0, 1))
def test_time_never_takes_and_a_clock_that_was_set_gives_an_hours_worth_at_most(
    ledger: Ledger, now_s: float, rate: float, share: float
) -> None:
    after = later(ledger, now_s, per_hour=rate, uniform_share=share)
    assert 0 <= after.hard - ledger.hard <= rate * (1 - share) * (1 + 1e-9) + 1e-9
    assert 0 <= after.uniform - ledger.uniform <= rate * share * (1 + 1e-9) + 1e-9
    assert after.day_bytes in (0, ledger.day_bytes)
    if after.day <= ledger.day:
        assert after.day_bytes == ledger.day_bytes


@given(ledgers, st.booleans(), st.floats(0, 1), st.floats(1e-6, 1))
def test_every_probability_is_one(ledger: Ledger, hard: bool, share: float, offered: float) -> None:
    by_chance, as_hard = chances(ledger, hard=hard, uniform_share=share)
    assert 0 <= by_chance <= 1
    assert 0 <= as_hard <= 1
    whole = inclusion(by_chance, as_hard, offered)
    assert 0 <= whole <= offered
    assert whole >= offered * max(by_chance, as_hard) * (1 - 1e-9)
    if not hard:
        assert as_hard == 0


@given(ledgers)
def test_a_ledger_survives_a_round_trip(ledger: Ledger) -> None:
    assert from_json(Ledger, to_json(ledger), where="test") == ledger


def test_large_samples_are_spread_over_the_day_by_their_bytes() -> None:
    assert per_hour(20, 24_000_000, 1000) == 20
    assert per_hour(20, 24_000_000, 1_000_000) == pytest.approx(0.9)
    assert per_hour(20, 24_000_000, 0) == 20
