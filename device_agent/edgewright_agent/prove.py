"""Proving: an artifact is loaded and its golden vectors run in a process of its own, before it may serve.

A model that crashes, hangs or fills the memory takes that process with it, not the agent.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from edgewright.artifact.golden import prove
from edgewright.artifact.release import find_artifact
from edgewright.errors import EdgewrightError
from edgewright.runtime.model import load_artifact

PR_SET_PDEATHSIG = 1
"""Linux, prctl(2)."""


@dataclass(frozen=True)
class ProofVerdict:
    """Whether the artifact computes here what the converter computed, and what was seen."""

    passed: bool
    detail: str
    runtime: str | None = None


def prove_in_process_of_its_own(slot: Path, *, threads: int, timeout_s: float) -> ProofVerdict:
    """Prove the artifact in a slot; a crash, a hang or an answer that makes no sense is a failure."""
    command = [sys.executable, "-m", "edgewright_agent.prove", str(slot)]
    command += ["--threads", str(threads), "--parent", str(os.getpid())]
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return ProofVerdict(False, f"the golden vectors did not finish within {timeout_s:g} s")
    except OSError as error:
        return ProofVerdict(False, f"no process could be started ({error.strerror or error})")
    return read_verdict(done.returncode, done.stdout, done.stderr)


def read_verdict(returncode: int, stdout: bytes, stderr: bytes) -> ProofVerdict:
    """The verdict that a proving process left behind; only its own plain yes is a yes."""
    if returncode != 0:
        last = (stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1][:200]
        how = f"signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
        return ProofVerdict(False, f"the model's process ended with {how} ({last})")
    try:
        # A runtime may write to standard output before; the verdict is the last line.
        answer = json.loads(stdout.decode().strip().splitlines()[-1])
        return ProofVerdict(answer["passed"] is True, str(answer["detail"]), answer["runtime"])
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return ProofVerdict(False, "the model's process gave no verdict")


def main() -> None:
    """Prove the artifact in a folder and print the verdict as one line of JSON."""
    parser = argparse.ArgumentParser(prog="edgewright_agent.prove")
    parser.add_argument("slot", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--parent", type=int, help="the process with which this one ends")
    arguments = parser.parse_args()
    if arguments.parent is not None:
        # A hanging model must not outlive the agent that gave it its time limit.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != arguments.parent:
            sys.exit("the agent is gone")
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
