"""Proving: an artifact is loaded, its golden vectors run and its cost is measured, before it may serve.

That happens in a process of its own with limits on time and memory: a model that crashes, hangs or fills the
memory takes that process with it, not the agent. This is the agent's side, which starts it and judges by what
it says; the process itself is `proving_process`.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgewright.figures import seconds, size
from edgewright_agent.config import AgentConfig
from edgewright_profiles import HardwareProfile

BEYOND_P99 = 0.01
"""Share of the runs that may be slower than a limit of the 99th percentile, by definition."""
FALSE_ALARM = 1e-3
"""Probability that a model within that limit fails, where its runs are independent."""
_OUT_OF_MEMORY = re.compile(r"bad.alloc|MemoryError|(cannot|failed to) allocate|out of memory", re.I)


@dataclass(frozen=True)
class ProofLimits:
    """What a release may take on this device; None: no limit."""

    timeout_s: float
    runs: int
    p99_s: float | None
    memory_bytes: int | None
    """Of the model alone, beyond the runtime, as the converter's gate counts it."""
    bit_exact: tuple[str, ...] = ()
    """Formats whose integers the profile wants equal to the converter's; else the manifest says how near."""


def limits_for(config: AgentConfig, profile: HardwareProfile) -> ProofLimits:
    """The limits of the configuration, else the profile's budgets."""
    p99_s, memory_bytes = config.prove_max_p99_s, config.prove_max_memory_bytes
    if not config.prove_budgets:
        p99_s = memory_bytes = None
    else:
        p99_s = p99_s or profile.budgets.latency_p99_s
        memory_bytes = memory_bytes or profile.budgets.peak_memory_bytes
    bit_exact = tuple(runtime.format for runtime in profile.runtimes if runtime.bit_exact)
    return ProofLimits(config.prove_timeout_s, config.prove_runs, p99_s, memory_bytes, bit_exact)


@dataclass(frozen=True)
class ProofVerdict:
    """Whether the artifact computes here what the converter computed at a bearable cost, and what was seen."""

    passed: bool
    detail: str
    runtime: str | None = None
    latencies_s: tuple[float, ...] = ()
    memory_bytes: int | None = None


def prove_in_process_of_its_own(slot: Path, *, threads: int, limits: ProofLimits) -> ProofVerdict:
    """Prove the artifact in a slot; a crash, a hang or an answer that makes no sense is a failure."""
    command = [sys.executable, "-m", "edgewright_agent.proving_process", str(slot)]
    command += ["--threads", str(threads), "--parent", str(os.getpid()), "--runs", str(limits.runs)]
    command += ["--seconds", str(limits.timeout_s / 4)]
    command += [f"--bit-exact={model_format}" for model_format in limits.bit_exact]
    if limits.memory_bytes is not None:
        command += ["--memory-bytes", str(limits.memory_bytes)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=limits.timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return ProofVerdict(False, f"the golden vectors did not finish within {limits.timeout_s:g} s")
    except OSError as error:
        return ProofVerdict(False, f"no process could be started ({error.strerror or error})")
    return judge(read_verdict(done.returncode, done.stdout, done.stderr), limits)


def read_verdict(returncode: int, stdout: bytes, stderr: bytes) -> ProofVerdict:
    """The verdict that a proving process left behind; only its own plain yes is a yes."""
    if returncode != 0:
        text = stderr.decode(errors="replace").strip()
        last = (
            "out of memory"
            if _OUT_OF_MEMORY.search(text)
            else (text.splitlines() or ["no message"])[-1][:200]
        )
        how = f"signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
        return ProofVerdict(False, f"the model's process ended with {how} ({last})")
    try:
        # A runtime may write to standard output before; the verdict is the last line.
        answer = json.loads(stdout.decode().strip().splitlines()[-1])
        return ProofVerdict(
            passed=answer["passed"] is True,
            detail=str(answer["detail"]),
            runtime=answer["runtime"],
            latencies_s=tuple(float(each) for each in answer["latencies_s"]),
            memory_bytes=answer["memory_bytes"],
        )
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return ProofVerdict(False, "the model's process gave no verdict")


def judge(verdict: ProofVerdict, limits: ProofLimits) -> ProofVerdict:
    """The verdict with what was measured held against the limits."""
    if not verdict.passed:
        if limits.memory_bytes is not None and _OUT_OF_MEMORY.search(verdict.detail):
            return _failed(verdict, f"it takes more memory than its {size(limits.memory_bytes)}")
        return verdict
    if limits.memory_bytes is not None and (verdict.memory_bytes or 0) > limits.memory_bytes:
        return _failed(
            verdict, f"it took {size(verdict.memory_bytes)} of memory, more than {size(limits.memory_bytes)}"
        )
    detail = verdict.detail
    if verdict.latencies_s:
        p99 = (
            f"p99 {seconds(float(np.percentile(verdict.latencies_s, 99)))} of {len(verdict.latencies_s)} runs"
        )
        beyond = sum(each > (limits.p99_s or math.inf) for each in verdict.latencies_s)
        if chance_of_at_least(beyond, len(verdict.latencies_s), BEYOND_P99) <= FALSE_ALARM:
            return _failed(verdict, f"{p99}, and {beyond} of them took more than {seconds(limits.p99_s)}")
        detail += f"; {p99}"
    if verdict.memory_bytes is not None:
        detail += f"; {size(verdict.memory_bytes)} of memory"
    return ProofVerdict(True, detail, verdict.runtime, verdict.latencies_s, verdict.memory_bytes)


def _failed(verdict: ProofVerdict, why: str) -> ProofVerdict:
    detail = f"{verdict.detail}; {why}" if verdict.passed else f"{why} ({verdict.detail})"
    return ProofVerdict(False, detail, verdict.runtime, verdict.latencies_s, verdict.memory_bytes)


def chance_of_at_least(count: int, runs: int, share: float) -> float:
    """P(X >= count) of a binomial X: how likely that many slow runs are of a model that is within its limit."""
    chance, below = (1.0 - share) ** runs, 0.0
    for successes in range(count):
        below += chance
        chance *= (runs - successes) / (successes + 1) * share / (1.0 - share)
    return max(0.0, 1.0 - below)
