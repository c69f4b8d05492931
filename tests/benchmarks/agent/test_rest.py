"""The benchmark of the inference API runs and measures what it says; its limits are for a quiet host."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_the_api_is_measured_beside_the_runtime_and_an_echo() -> None:
    command = [sys.executable, "-m", "benchmarks.agent.rest", "--calls", "100", "--json"]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=root)
    assert done.returncode in (0, 1), done.stderr
    figures = json.loads(done.stdout)
    assert figures["calls"] == 100
    assert 0 < figures["bare_p50_s"] < figures["api_p50_s"]
    assert 0 < figures["echo_p50_s"] < figures["api_p50_s"]
    assert figures["added_over_echo"] == pytest.approx(figures["added_p50_s"] / figures["echo_p50_s"])
