"""Jobs of two real ranks under torchrun's agent, and a process group of one for tests of single functions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from edgewright_fleet.retraining.job import JobStatus, TrainingJob
from edgewright_fleet.retraining.local import LocalBackend

FUNCTIONS = Path(__file__).parent / "functions"
LIMIT_S = 240
"""For any event: a loaded machine takes half a minute for what takes three seconds on a quiet one."""


def job_in(folder: Path, function: str = "blobs:train", **fields: Any) -> TrainingJob:
    given: dict[str, Any] = {"processes_per_node": 2, "checkpoint_period_s": 0.05, "seed": 7, **fields}
    return TrainingJob(name="blobs", function=function, code=FUNCTIONS, folder=folder, **given)


def eventually(holds: Callable[[], Any], what: str) -> Any:
    until_s = time.monotonic() + LIMIT_S
    while not (found := holds()):
        assert time.monotonic() < until_s, f"waited {LIMIT_S} s for {what}"
        time.sleep(0.05)
    return found


def end_of(job: TrainingJob) -> JobStatus:
    backend = LocalBackend()
    eventually(lambda: backend.status(job).state != "running", f"the end of {job.folder}")
    return backend.status(job)


def losses(job: TrainingJob) -> dict[str, str]:
    """Each rank's loss at each step, as it was computed last."""
    lines = {}
    for rank in range(job.processes_per_node):
        for line in (job.folder / "output" / f"losses-{rank}").read_text().splitlines():
            step, loss = line.split()
            lines[f"{rank}:{step}"] = loss
    return lines


@pytest.fixture
def submitted() -> Iterator[Callable[[TrainingJob], LocalBackend]]:
    """Submits jobs; whatever still runs at the end of the test is cancelled."""
    backend, jobs = LocalBackend(), []

    def submit(job: TrainingJob) -> LocalBackend:
        jobs.append(job)
        backend.submit(job)
        return backend

    yield submit
    for job in jobs:
        backend.cancel(job)


@pytest.fixture
def alone() -> Iterator[dist.ProcessGroup]:
    """A process group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()
