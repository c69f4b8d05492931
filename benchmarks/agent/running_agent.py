"""A real agent in a process of its own, the bare runtime in another, and what the kernel says about both."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import click

from edgewright_agent.event_log import events

START_S = 60.0
POLL_S = 0.002


@dataclass(frozen=True)
class Started:
    """A process that has done its first inference, or come to whatever else was waited for."""

    pid: int
    wall_s: float
    """From before the fork until then."""
    cpu_s: float
    """Processor time of all its threads by then, and some milliseconds more."""


FIRST_INFERENCE = "first inference done"
API_LISTENS = "the inference API listens"


@contextlib.contextmanager
def running_agent(folder: Path, until: str = FIRST_INFERENCE) -> Iterator[Started]:
    """`edgewright agent run` with the folder's `agent.toml`, once its log says `until`; ended with SIGTERM."""
    command = ["-m", "edgewright_cli.main", "agent", "run", "--config", str(folder / "agent.toml")]
    before = len(events(folder / "state", 1_000_000))
    with _process(command) as (process, begun):
        while True:
            said = [
                event for event in events(folder / "state", 1_000_000)[before:] if until in event["message"]
            ]
            if said:
                end = datetime.fromisoformat(said[0]["time"]).timestamp()
                yield Started(process.pid, end - begun, processor_s(process.pid))
                return
            _check(process, begun)


@contextlib.contextmanager
def running_bare(model: Path) -> Iterator[Started]:
    """Python with numpy, ONNX Runtime and the model, as an application without Edgewright would have it."""
    with _process(["-m", "benchmarks.agent.bare_runtime", str(model)]) as (process, begun):
        assert process.stdout is not None
        end = float(process.stdout.readline())
        yield Started(process.pid, end - begun, processor_s(process.pid))


@contextlib.contextmanager
def _process(arguments: Sequence[str]) -> Iterator[tuple[subprocess.Popen[str], float]]:
    begun = time.time()
    # With byte code in files, as an installed package has it: compiling takes time and leaves holes in the heap.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen(
        [sys.executable, *arguments], env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        yield process, begun
    finally:
        process.terminate()
        process.wait(START_S)


def _check(process: subprocess.Popen[str], begun: float) -> None:
    if process.poll() is not None or time.time() - begun > START_S:
        raise click.ClickException("the agent does not serve; run it by hand to see why")
    time.sleep(POLL_S)


def processor_s(pid: int) -> float:
    """Processor time of a process so far, of all threads that live, in nanosecond steps (proc(5), schedstat)."""
    used = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            used += int((thread / "schedstat").read_text().split()[0])
    return used / 1e9


def memory_bytes(pid: int) -> tuple[int, int]:
    """(resident, its proportional share) of a process: pages of files that others map too count in part there."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = {match[1]: int(match[2]) * 1024 for match in re.finditer(r"^(Rss|Pss):\s+(\d+) kB$", text, re.M)}
    return found["Rss"], found["Pss"]
