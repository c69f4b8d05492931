"""A seeded part of `python -m benchmarks.agent.faults`; the whole of it is run and recorded by hand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.slow
def test_devices_under_faults_serve_a_good_model_and_take_the_next_one() -> None:
    command = [sys.executable, "-m", "benchmarks.agent.faults", "--trials", "100", "--seed", "3", "--no-file"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, cwd=REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"^\| ([^|]+) \| (\d+) \| (\d+) \|.* (\d+) \|$", done.stdout, re.MULTILINE)
    assert len(rows) == 15
    assert sum(int(trials) for _, trials, _, _ in rows) == 100
    # A fault that never strikes proves nothing.
    assert sum(int(struck) for _, _, struck, _ in rows) >= 80
    assert {problems for *_, problems in rows} == {"0"}
