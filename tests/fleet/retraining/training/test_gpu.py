"""A job of one rank on a GPU, through NCCL; where there is none these are left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from edgewright_fleet.retraining.job import TrainingJob
from edgewright_fleet.retraining.local import LocalBackend

from .conftest import end_of, eventually, job_in, losses

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that PyTorch can use"),
]
Submit = Callable[[TrainingJob], LocalBackend]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The losses of a run on a GPU to which nothing happens."""
    job = job_in(tmp_path_factory.mktemp("undisturbed"), processes_per_node=1)
    LocalBackend().submit(job)
    status = end_of(job)
    assert (status.state, status.restarts, status.step) == ("succeeded", 0, 40), status.why
    return losses(job)


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_a_killed_rank_on_a_gpu_costs_a_restart_and_no_step_is_another(
    how: str, tmp_path: Path, submitted: Submit, undisturbed: dict[str, str]
) -> None:
    job = job_in(tmp_path, processes_per_node=1, parameters={"how": how, "saved_at": [10], "die_at": 25})
    submitted(job)
    status = end_of(job)
    assert (status.state, status.restarts) == ("succeeded", 1), status.why
    assert losses(job) == undisturbed
    assert any("goes on after step" in line for line in LocalBackend().logs(job))


def test_what_a_gpu_began_two_processes_without_one_finish(
    tmp_path: Path, submitted: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_in(tmp_path, processes_per_node=1, parameters={"wait_at": 5}, checkpoint_period_s=3600)
    backend = submitted(job)
    eventually(lambda: backend.status(job).step, "a step")
    backend.cancel(job)
    begun = backend.status(job).checkpoint_step
    assert begun is not None, "cancelled without a checkpoint"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    job = job.model_copy(update={"parameters": {"how": "fsdp"}, "processes_per_node": 2})
    backend.resume(job)
    status = end_of(job)
    assert (status.state, status.step) == ("succeeded", 40), status.why
    assert f"[0] goes on after step {begun}" in list(backend.logs(job))


def test_more_processes_than_gpus_are_one_line(tmp_path: Path, submitted: Submit) -> None:
    job = job_in(tmp_path, processes_per_node=torch.cuda.device_count() + 1)
    submitted(job)
    status = end_of(job)
    assert status.state == "failed"
    assert f"this machine has {torch.cuda.device_count()} GPUs and runs more processes" in (status.why or "")
