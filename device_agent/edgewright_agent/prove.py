"""Proving: an artifact is loaded and its golden vectors run in a process of its own, before it may serve.

A model that crashes, hangs or fills the memory takes that process with it, not the agent.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from edgewright.artifact.golden import prove
from edgewright.artifact.release import find_artifact
from edgewright.errors import EdgewrightError
from edgewright.runtime.model import load_artifact


@dataclass(frozen=True)
class ProofVerdict:
    """Whether the artifact computes here what the converter computed, and what was seen."""

    passed: bool
    detail: str
    runtime: str | None = None


def prove_in_own_process(slot: Path, *, threads: int, timeout_s: float) -> ProofVerdict:
    """Prove the artifact in a slot; a crash, a hang or an answer that makes no sense is a failure."""
    command = [sys.executable, "-m", "edgewright_agent.prove", str(slot), "--threads", str(threads)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return ProofVerdict(False, f"golden vectors did not finish within {timeout_s:g} s")
    if done.returncode != 0:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1][:200]
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        return ProofVerdict(False, f"the model's process ended with {how} ({last})")
    try:
        answer = json.loads(done.stdout.decode().strip().splitlines()[-1])
        return ProofVerdict(bool(answer["passed"]), str(answer["detail"]), answer.get("runtime"))
    except (ValueError, KeyError, IndexError, UnicodeDecodeError, TypeError):
        return ProofVerdict(False, "the model's process gave no verdict")


def main() -> None:
    """Prove the artifact in a folder and print the verdict as one line of JSON."""
    parser = argparse.ArgumentParser(prog="edgewright_agent.prove")
    parser.add_argument("slot", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    try:
        artifact = find_artifact(arguments.slot)
        model = load_artifact(artifact, threads=arguments.threads)
        verdict = prove(artifact.golden(), artifact.manifest.golden, model.run_raw)
        answer = {
            "passed": verdict.passed,
            "detail": f"{verdict.vectors} golden vectors: {verdict.detail}",
            "runtime": model.runtime,
        }
    except EdgewrightError as error:
        answer = {"passed": False, "detail": str(error), "runtime": None}
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
