"""One step as a child process: how long it took, its peak memory, and on failure the line that says why.

A step that crashes, hangs or fills the memory ends there and becomes a line of the result. This process imports
nothing heavy: Linux counts the memory of the process that forks into the child's peak.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.converters.cache import cache_folder

TIMEOUT_SECONDS = 1800.0


class StepFailedError(Exception):
    """A step of the benchmark failed; the message is one line."""


@dataclass(frozen=True)
class Usage:
    """What a step cost."""

    seconds: float
    peak_rss_bytes: int


def run_step(
    command: Sequence[str | Path],
    log: Path,
    python_path: Sequence[Path] = (),
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> Usage:
    """Run a command to its end, its output in `log`. Raises `StepFailedError`."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if python_path:
        environment["PYTHONPATH"] = os.pathsep.join(map(str, python_path))
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with log.open("wb") as output:
        child = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
        )
        try:
            status, usage = _wait(child.pid, started + timeout_seconds)
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)
            raise
    seconds = time.monotonic() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode < 0:
        raise StepFailedError(f"ended by {signal.Signals(-child.returncode).name}")
    if child.returncode > 0:
        raise StepFailedError(_reason(log.read_text(errors="replace")))
    return Usage(seconds, usage.ru_maxrss * 1024)


def _wait(pid: int, deadline: float) -> tuple[int, resource.struct_rusage]:
    while True:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            return status, usage
        if time.monotonic() > deadline:
            raise StepFailedError("took too long")
        time.sleep(0.05)


def _reason(output: str) -> str:
    """The line that names the error: the last one that is not indented, without this machine's folders."""
    lines = [line for line in output.splitlines() if line.strip() and not line.startswith((" ", "\t"))]
    reason = lines[-1] if lines else "failed without a word"
    return reason.replace(str(cache_folder()), "…").replace(str(Path.home()), "~")[:200]
