"""A seeded part of `python -m benchmarks.agent.faults`; the whole of it is run and recorded by hand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.agent.fault_plan import AT_STEPS, CASES, OTHERS, Place, plan

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.slow
def test_devices_under_faults_serve_a_good_model_and_take_the_next_one() -> None:
    command = [sys.executable, "-m", "benchmarks.agent.faults", "--trials", "100", "--seed", "3", "--no-file"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, cwd=REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"^\| ([^|]+) \| (\d+) \| (\d+) \|.* (\d+) \|$", done.stdout, re.MULTILINE)
    assert len(rows) == 15
    # Shares are rounded, each kind by itself.
    assert abs(sum(int(trials) for _, trials, _, _ in rows) - 100) <= len(OTHERS)
    # A fault that never strikes proves nothing.
    assert sum(int(struck) for _, _, struck, _ in rows) >= 80
    assert {problems for *_, problems in rows} == {"0"}


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 90), st.integers(0, 4000), st.integers(0, 9))
def test_the_plan_strikes_each_durable_step_once_before_any_twice(steps: int, trials: int, seed: int) -> None:
    at = [Place(before, work, step) for before, work in CASES for step in range(1, steps + 2)]
    chosen = plan(at, trials, seed)
    assert abs(len(chosen) - trials) <= len(OTHERS)
    assert {trial.kind for trial in chosen} >= set(OTHERS)
    struck = [(t.before, t.work, t.step) for t in chosen if t.kind in AT_STEPS]
    often = [struck.count((place.before, place.work, place.step)) for place in at]
    assert max(often) - min(often) <= 1
    if trials >= 10 * len(at):
        assert set(often) == {len(AT_STEPS)}
        updates = {(t.before, t.step) for t in chosen if t.kind == "registry gone"}
        assert len(updates) == min(3 * (steps + 1), sum(t.kind == "registry gone" for t in chosen))
