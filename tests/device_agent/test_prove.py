from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright_agent.prove import ProofVerdict, prove_in_process_of_its_own, read_verdict


def prove(slot: Path, timeout_s: float = 20.0) -> ProofVerdict:
    return prove_in_process_of_its_own(slot, threads=1, timeout_s=timeout_s)


@pytest.mark.slow
def test_an_artifact_that_computes_what_the_converter_computed_passes(registry: Any) -> None:
    registry.release("1.0.0")
    verdict = prove(registry.root)
    assert verdict.passed
    assert verdict.detail == "4 golden vectors: identical"
    assert verdict.runtime is not None
    assert verdict.runtime.startswith("onnxruntime ")


@pytest.mark.slow
def test_one_that_computes_something_else_fails_and_says_where(registry: Any) -> None:
    registry.release("1.0.0", wrong_golden=True)
    verdict = prove(registry.root)
    assert not verdict.passed
    assert "output scores of vector 0 differs by 1 LSB" in verdict.detail


@pytest.mark.slow
def test_a_corrupt_or_missing_artifact_fails(registry: Any, tmp_path: Path) -> None:
    registry.release("1.0.0")
    registry.flip_a_byte_of_the_model("1.0.0")
    assert "its digest does not match" in prove(registry.root).detail
    assert "no oci-layout file" in prove(tmp_path / "nowhere").detail


@pytest.mark.slow
def test_a_model_that_never_answers_fails_when_its_time_is_over(registry: Any) -> None:
    registry.release("1.0.0", kind="endless")
    verdict = prove(registry.root, timeout_s=2.0)
    assert not verdict.passed
    assert verdict.detail == "the golden vectors did not finish within 2 s"
    assert children() == []


@pytest.mark.slow
def test_a_model_that_takes_its_process_down_fails_and_the_caller_lives(registry: Any) -> None:
    registry.release("1.0.0", kind="endless")
    verdicts: list[ProofVerdict] = []
    thread = threading.Thread(target=lambda: verdicts.append(prove(registry.root)))
    thread.start()
    while not children():
        time.sleep(0.02)
    time.sleep(0.2)
    for child in children():
        os.kill(child, signal.SIGSEGV)
    thread.join(10)
    (verdict,) = verdicts
    assert not verdict.passed
    assert "ended with signal 11" in verdict.detail


def children() -> list[int]:
    """The processes that this one has started and not yet seen end."""
    tasks = Path("/proc/self/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


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
    document = {"passed": passed, "detail": "", "runtime": None}
    assert read_verdict(0, json.dumps(document).encode(), b"").passed is (passed is True)


def test_a_yes_from_a_process_that_then_crashed_is_no_yes() -> None:
    yes = json.dumps({"passed": True, "detail": "identical", "runtime": "r"}).encode()
    assert read_verdict(0, b"a line of the runtime's\n" + yes + b"\n", b"").passed
    assert not read_verdict(-11, yes, b"").passed
