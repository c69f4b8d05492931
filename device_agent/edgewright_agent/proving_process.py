"""The process in which an artifact is proved: it takes limits upon itself, runs the model, prints what it saw.

Its memory is limited by RLIMIT_DATA, not RLIMIT_AS: measured with ONNX Runtime 1.32 and a model of 20 MB, the
address space grew by 42 MB with one thread and by 262 MB with four, as each thread's arena reserves 64 MB that
nobody touches, while the private writable memory, which is what RLIMIT_DATA counts, grew by 34 and 63 MB, and
what was resident by 49 and 53 MB. Stacks count as well, and are allowed for.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import resource
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from edgewright.artifact.golden import GoldenVectors, prove
from edgewright.artifact.release import Artifact, find_artifact
from edgewright.errors import EdgewrightError
from edgewright.runtime.memory import own_memory
from edgewright.runtime.model import Model, load_artifact
from edgewright.runtime.session import import_runtime
from edgewright_agent.parent import end_with

STACK_BYTES = 8 << 20
"""Of a thread where nothing else is set."""


def limit_memory(more_bytes: int, threads: int) -> None:
    """Let allocations fail once this process has taken so much more than it has now.

    Where the device's memory is short before that, the kernel shall end this process and not the agent.
    """
    limit = own_memory("VmData") + more_bytes + threads * STACK_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def measure(model: Model, golden: GoldenVectors, *, runs: int, at_most_s: float) -> list[float]:
    """Seconds of single inferences on the golden inputs, which ran before, so that all is warm."""
    rows = [{name: array[i] for name, array in golden.inputs.items()} for i in range(golden.count)]
    end, times = time.perf_counter() + at_most_s, []
    for row in itertools.islice(itertools.cycle(rows), runs):
        start = time.perf_counter()
        model.run_raw(row)
        now = time.perf_counter()
        times.append(now - start)
        if now >= end:
            break
    return times


def examine(
    artifact: Artifact,
    *,
    threads: int,
    runs: int,
    at_most_s: float,
    memory_bytes: int | None,
    bit_exact: Collection[str] = (),
) -> dict[str, Any]:
    """Prove an artifact and measure it: what the agent is told. Of `bit_exact` formats no bit may differ."""
    import_runtime(artifact.manifest.format)
    before = own_memory()
    if memory_bytes is not None:
        limit_memory(memory_bytes, threads)
    model = load_artifact(artifact, threads=threads)
    golden = artifact.golden()
    policy = artifact.manifest.golden
    if artifact.manifest.format in bit_exact:
        policy = policy.model_copy(update={"max_lsb": 0})
    verdict = prove(golden, policy, model.run_raw)
    times = measure(model, golden, runs=runs, at_most_s=at_most_s) if verdict.passed else []
    peak = own_memory()
    return {
        "passed": verdict.passed,
        "detail": f"{verdict.vectors} golden vectors: {verdict.detail}",
        "runtime": model.runtime,
        "latencies_s": times,
        "memory_bytes": peak - before if peak else None,
    }


def main(arguments: list[str] | None = None) -> None:
    """Prove the artifact in a folder and print the verdict as one line of JSON."""
    parser = argparse.ArgumentParser(prog="edgewright_agent.proving_process")
    parser.add_argument("slot", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--parent", type=int, help="the process with which this one ends")
    parser.add_argument("--runs", type=int, default=300, help="inferences to measure the latency by")
    parser.add_argument("--seconds", type=float, default=15.0, help="after which no further one is begun")
    parser.add_argument("--memory-bytes", type=int, help="that the model may take beyond its runtime")
    parser.add_argument("--bit-exact", action="append", default=[], metavar="FORMAT")
    given = parser.parse_args(arguments)
    if given.parent is not None:
        end_with(given.parent)
    try:
        answer = examine(
            find_artifact(given.slot),
            threads=given.threads,
            runs=given.runs,
            at_most_s=given.seconds,
            memory_bytes=given.memory_bytes,
            bit_exact=given.bit_exact,
        )
    except EdgewrightError as error:
        answer = {
            "passed": False,
            "detail": str(error),
            "runtime": None,
            "latencies_s": [],
            "memory_bytes": None,
        }
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
