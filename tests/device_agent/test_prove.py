from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright_agent.config import AgentConfig
from edgewright_agent.prove import (
    ProofLimits,
    ProofVerdict,
    chance_of_at_least,
    judge,
    limits_for,
    prove_in_process_of_its_own,
    read_verdict,
)
from edgewright_profiles import load_profile


def limits(**changes: Any) -> ProofLimits:
    return replace(ProofLimits(timeout_s=20.0, runs=50, p99_s=None, memory_bytes=None), **changes)


def config() -> AgentConfig:
    here = Path("/nowhere")
    return AgentConfig(fleet="f", device="d", profile="raspberry-pi-5", registry=here, state_dir=here)


def prove(slot: Path, **changes: Any) -> ProofVerdict:
    return prove_in_process_of_its_own(slot, threads=1, limits=limits(**changes))


@pytest.mark.slow
def test_an_artifact_that_computes_what_the_converter_computed_passes(registry: Any) -> None:
    registry.release("1.0.0")
    verdict = prove(registry.root)
    assert verdict.passed
    assert verdict.detail.startswith("4 golden vectors: identical; p99 ")
    assert len(verdict.latencies_s) == 50
    assert 0 < max(verdict.latencies_s) < 5
    assert verdict.memory_bytes is not None
    assert 0 < verdict.memory_bytes < 50e6
    assert verdict.runtime is not None
    assert verdict.runtime.startswith("onnxruntime ")


@pytest.mark.slow
def test_one_that_computes_something_else_fails_and_says_where(registry: Any) -> None:
    registry.release("1.0.0", wrong_golden=True)
    verdict = prove(registry.root)
    assert not verdict.passed
    assert "output scores of vector 0 differs by 1 LSB" in verdict.detail


@pytest.mark.slow
def test_integers_differ_in_no_bit_where_the_profile_says_so_whatever_the_manifest_allows(
    registry: Any,
) -> None:
    registry.release("1.0.0", wrong_golden=True, max_lsb=1)
    assert "onnx" in limits_for(config(), load_profile("raspberry-pi-5")).bit_exact
    assert "onnx" not in limits_for(config(), load_profile("jetson-orin-nano-tensorrt")).bit_exact
    assert prove(registry.root, bit_exact=("tflite",)).passed
    verdict = prove(registry.root, bit_exact=("onnx",))
    assert not verdict.passed
    assert "differs by 1 LSB" in verdict.detail


@pytest.mark.slow
def test_a_corrupt_or_missing_artifact_fails(registry: Any, tmp_path: Path) -> None:
    registry.release("1.0.0")
    registry.flip_a_byte_of_the_model("1.0.0")
    assert "its digest does not match" in prove(registry.root).detail
    assert "no oci-layout file" in prove(tmp_path / "nowhere").detail


@pytest.mark.slow
def test_a_model_that_never_answers_fails_when_its_time_is_over(registry: Any) -> None:
    registry.release("1.0.0", kind="endless")
    before = children()
    verdict = prove(registry.root, timeout_s=2.0)
    assert not verdict.passed
    assert verdict.detail == "the golden vectors did not finish within 2 s"
    assert children() <= before


@pytest.mark.slow
def test_a_model_that_takes_its_process_down_fails_and_the_caller_lives(registry: Any) -> None:
    registry.release("1.0.0", kind="endless")
    verdicts: list[ProofVerdict] = []
    thread = threading.Thread(target=lambda: verdicts.append(prove(registry.root)))
    before = children()
    thread.start()
    while not children() - before:
        time.sleep(0.02)
    time.sleep(0.2)
    for child in children() - before:
        os.kill(child, signal.SIGSEGV)
    thread.join(60)
    (verdict,) = verdicts
    assert not verdict.passed
    assert "ended with signal 11" in verdict.detail


def children() -> set[int]:
    """The processes that this one has started and not yet seen end."""
    tasks = Path("/proc/self/task").iterdir()
    return {int(child) for task in tasks for child in (task / "children").read_text().split()}


@given(st.binary(), st.binary(), st.integers(-64, 255))
def test_noise_is_never_a_yes(stdout: bytes, stderr: bytes, returncode: int) -> None:
    verdict = read_verdict(returncode, stdout, stderr)
    assert not verdict.passed
    assert "\n" not in verdict.detail


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(json_values, json_values)
def test_json_of_another_meaning_is_never_a_yes(answer: Any, passed: Any) -> None:
    assert not read_verdict(0, json.dumps(answer).encode(), b"").passed
    document = {"passed": passed, "detail": "", "runtime": None, "latencies_s": [], "memory_bytes": None}
    assert read_verdict(0, json.dumps(document).encode(), b"").passed is (passed is True)


def test_a_yes_from_a_process_that_then_crashed_is_no_yes() -> None:
    document = {"passed": True, "detail": "", "runtime": "r", "latencies_s": [0.1], "memory_bytes": 1}
    yes = json.dumps(document).encode()
    assert read_verdict(0, b"a line of the runtime's\n" + yes + b"\n", b"").passed
    assert not read_verdict(-11, yes, b"").passed


@pytest.mark.slow
def test_a_model_that_is_slower_than_its_budget_for_certain_fails(registry: Any) -> None:
    registry.release("1.0.0")
    verdict = prove(registry.root, p99_s=1e-9)
    assert not verdict.passed
    assert "golden vectors: identical; p99 " in verdict.detail
    assert "of 50 runs, and 50 of them took more than 0.001 µs" in verdict.detail


@pytest.mark.slow
def test_measuring_ends_in_its_time_however_many_runs_are_asked_for(registry: Any) -> None:
    registry.release("1.0.0")
    verdict = prove(registry.root, runs=1_000_000, timeout_s=12.0)
    assert verdict.passed
    assert 50 < len(verdict.latencies_s) < 1_000_000


@pytest.mark.slow
def test_latency_is_not_measured_where_nobody_asked(registry: Any) -> None:
    registry.release("1.0.0")
    verdict = prove(registry.root, runs=0, p99_s=1e-9)
    assert verdict.passed
    assert verdict.latencies_s == ()


@pytest.mark.slow
def test_a_model_that_fills_the_memory_is_stopped_at_its_limit(registry: Any) -> None:
    registry.release("1.0.0", kind="greedy")
    free = prove(registry.root)
    assert free.passed
    assert free.memory_bytes is not None
    assert free.memory_bytes > 200e6
    held = prove(registry.root, memory_bytes=30_000_000)
    assert not held.passed
    assert held.detail.startswith("it takes more memory than its 30 MB (")


def test_a_model_that_needs_more_resident_memory_than_its_budget_fails() -> None:
    seen = ProofVerdict(True, "identical", "r", memory_bytes=2_000_000)
    assert judge(seen, limits(memory_bytes=2_000_000)).passed
    verdict = judge(seen, limits(memory_bytes=1_000_000))
    assert (verdict.passed, verdict.detail) == (False, "identical; it took 2 MB of memory, more than 1 MB")


def test_the_three_slowest_of_three_hundred_may_be_slow_but_not_eleven() -> None:
    def with_slow(count: int) -> bool:
        times = (0.2,) * count + (0.01,) * (300 - count)
        return judge(ProofVerdict(True, "", "r", times), limits(p99_s=0.1)).passed

    assert [with_slow(count) for count in (0, 3, 10, 11, 300)] == [True, True, True, False, False]


def test_what_failed_already_is_not_made_to_pass_by_being_quick() -> None:
    assert not judge(ProofVerdict(False, "differs", "r", (0.001,)), limits(p99_s=1.0)).passed


@given(st.integers(1, 400), st.integers(0, 400), st.floats(0.001, 0.5))
def test_the_chance_of_slow_runs_is_that_of_the_binomial_distribution(
    runs: int, count: int, share: float
) -> None:
    count = min(count, runs)
    terms = (math.comb(runs, i) * share**i * (1 - share) ** (runs - i) for i in range(count, runs + 1))
    assert chance_of_at_least(count, runs, share) == pytest.approx(min(1.0, sum(terms)), abs=1e-9)
