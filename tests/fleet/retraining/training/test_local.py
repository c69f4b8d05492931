"""Jobs on this machine: real ranks, killed and stopped at real steps, go on to the same losses to the last bit."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import safetensors.numpy

from edgewright.errors import ConfigError
from edgewright_fleet.retraining import local
from edgewright_fleet.retraining.job import TrainingJob
from edgewright_fleet.retraining.local import LocalBackend
from edgewright_fleet.retraining.training.whole import folder_of, newest_whole

from .conftest import end_of, eventually, job_in, losses

Submit = Callable[[TrainingJob], LocalBackend]


def supervisor(job: TrainingJob) -> int:
    return int((job.folder / "supervisor.lock").read_text())


def ranks(job: TrainingJob) -> list[int]:
    parent = supervisor(job)
    lists = [file.read_text() for file in Path(f"/proc/{parent}/task").glob("*/children")]
    return [int(child) for text in lists for child in text.split()]


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The losses of a run to which nothing happens."""
    job = job_in(tmp_path_factory.mktemp("undisturbed"))
    LocalBackend().submit(job)
    status = end_of(job)
    assert (status.state, status.restarts, status.step, status.steps, status.left_s) == (
        "succeeded",
        0,
        40,
        40,
        0,
    )
    assert status.loss is not None
    tensors = safetensors.numpy.load_file(job.folder / "output" / "model.safetensors")
    assert tensors["0.weight"].shape == (32, 16)
    return losses(job)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_a_killed_rank_costs_a_restart_and_no_step_is_another(
    how: str, tmp_path: Path, submitted: Submit, undisturbed: dict[str, str]
) -> None:
    job = job_in(tmp_path, parameters={"how": how, "saved_at": [10], "die_at": 25})
    submitted(job)
    status = end_of(job)
    assert (status.state, status.restarts) == ("succeeded", 1)
    assert losses(job) == undisturbed
    assert any("goes on after step" in line for line in LocalBackend().logs(job))


@pytest.mark.slow
def test_a_cancelled_job_writes_a_checkpoint_and_resumes_under_fsdp_to_the_same_losses(
    tmp_path: Path, submitted: Submit, undisturbed: dict[str, str]
) -> None:
    job = job_in(tmp_path, parameters={"wait_at": 5}, checkpoint_period_s=3600)
    backend = submitted(job)
    eventually(lambda: (job.folder / "output" / "losses-1").exists() and backend.status(job).step, "a step")
    first = supervisor(job)
    backend.submit(job)
    assert supervisor(job) == first, "a second supervisor was started"

    backend.cancel(job)
    status = backend.status(job)
    assert status.state == "cancelled"
    assert status.checkpoint_step is not None, "cancelled without a checkpoint"
    backend.cancel(job)
    backend.submit(job)
    assert backend.status(job).state == "cancelled", "a submission started what was cancelled"

    # A checkpoint of DDP, and the rest of the run under FSDP.
    job = job.model_copy(update={"parameters": {"how": "fsdp"}})
    backend.resume(job)
    assert end_of(job).state == "succeeded"
    assert losses(job) == undisturbed
    backend.submit(job)
    backend.resume(job)
    assert backend.status(job).state == "succeeded", "a job that is done was started again"
    assert [line for line in backend.logs(job, follow=True) if "goes on" in line] == [
        f"[0] goes on after step {status.checkpoint_step}"
    ]


@pytest.mark.slow
def test_a_killed_supervisor_takes_its_ranks_along_and_a_damaged_checkpoint_is_passed_over(
    tmp_path: Path, submitted: Submit, undisturbed: dict[str, str]
) -> None:
    job = job_in(tmp_path, parameters={"saved_at": [10, 20], "wait_at": 25})
    backend = submitted(job)
    eventually(lambda: len(list((job.folder / "checkpoints").glob("*/whole.json"))) >= 2, "two checkpoints")
    children = ranks(job)
    assert len(children) == 2
    os.kill(supervisor(job), signal.SIGKILL)
    eventually(lambda: all(gone(child) for child in children), "the end of the ranks")

    status = eventually(lambda: (s := backend.status(job)).state != "running" and s, "the status")
    assert status.state == "failed"
    newest = newest_whole(job.folder)
    assert (
        status.why == f"its supervisor was killed, or the machine stopped; resume goes on from step {newest}"
    )
    file = folder_of(job.folder, newest or 0) / "__1_0.distcp"
    file.write_bytes(file.read_bytes()[:-1])

    (job.folder / "output" / "go").touch()
    backend.resume(job)
    assert end_of(job).state == "succeeded"
    assert losses(job) == undisturbed
    log = "\n".join(backend.logs(job))
    assert f"[0] checkpoint passed over: {file}: has " in log


@pytest.mark.slow
def test_a_machine_that_shuts_down_suspends_the_job_which_goes_on_with_one_process(
    tmp_path: Path, submitted: Submit
) -> None:
    job = job_in(tmp_path, parameters={"wait_at": 5}, checkpoint_period_s=3600)
    backend = submitted(job)
    eventually(lambda: (job.folder / "output" / "losses-1").exists(), "a step")
    os.kill(supervisor(job), signal.SIGTERM)
    suspended = end_of(job)
    assert suspended.state == "suspended"
    assert suspended.checkpoint_step is not None

    (job.folder / "output" / "go").touch()
    backend.resume(job.model_copy(update={"processes_per_node": 1}))
    assert end_of(job).state == "succeeded"
    assert f"[0] goes on after step {suspended.checkpoint_step}" in list(backend.logs(job))


@pytest.mark.slow
def test_sigterm_to_one_rank_has_all_ranks_save_before_they_start_again(
    tmp_path: Path, submitted: Submit, undisturbed: dict[str, str]
) -> None:
    job = job_in(tmp_path, parameters={"wait_at": 5}, checkpoint_period_s=3600)
    backend = submitted(job)
    eventually(lambda: (job.folder / "output" / "losses-1").exists(), "a step")
    os.kill(ranks(job)[1], signal.SIGTERM)
    eventually(lambda: backend.status(job).restarts == 1, "the restart")
    (job.folder / "output" / "go").touch()
    status = end_of(job)
    assert status.state == "succeeded"
    assert losses(job) == undisturbed
    assert any("goes on after step" in line for line in backend.logs(job)), "nothing was saved"


@pytest.mark.slow
def test_a_function_that_raises_is_one_line_with_the_users_own_line(
    tmp_path: Path, submitted: Submit
) -> None:
    job = job_in(tmp_path, "blobs:fails", max_restarts=0, processes_per_node=1)
    backend = submitted(job)
    status = end_of(job)
    assert status.state == "failed"
    assert "\n" not in status.why
    assert "blobs.py, line " in status.why
    assert status.why.endswith("in fails: ValueError: the labels are missing")
    assert any(line.startswith("[0] Traceback") for line in backend.logs(job))


@pytest.mark.slow
def test_a_rank_that_does_not_stop_is_killed_with_its_supervisor(
    tmp_path: Path, submitted: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_in(tmp_path, "blobs:hangs")
    backend = submitted(job)
    eventually(lambda: (job.folder / "progress.jsonl").exists(), "the function")
    children = ranks(job)
    assert len(children) == 2
    monkeypatch.setattr(local, "PATIENCE_S", 0.5)
    backend.cancel(job)
    assert backend.status(job).state == "cancelled"
    assert backend.status(job).why == "killed: it did not stop within its notice"
    eventually(lambda: all(gone(child) for child in children), "the end of the ranks")


@pytest.mark.slow
def test_of_many_who_submit_at_once_one_starts_the_job(tmp_path: Path, submitted: Submit) -> None:
    job = job_in(tmp_path, parameters={"steps": 2}, processes_per_node=1)
    with ThreadPoolExecutor(8) as many:
        list(many.map(submitted, [job] * 8))
    assert end_of(job).state == "succeeded"
    assert len(list((job.folder / "logs").glob("blobs_*"))) == 1


def test_a_job_that_does_not_fit_is_refused_before_anything_starts(tmp_path: Path) -> None:
    backend = LocalBackend()
    job = job_in(tmp_path / "job")
    for changed, problem in (
        ({"nodes": 2}, "asks for 2 nodes"),
        ({"code": tmp_path}, "no module blobs"),
        ({"weights": tmp_path / "none.safetensors"}, "no such file"),
    ):
        with pytest.raises(ConfigError, match=problem):
            backend.submit(job.model_copy(update=changed))
    for call in (backend.status, backend.cancel, backend.resume, lambda one: list(backend.logs(one))):
        with pytest.raises(ConfigError, match="never submitted"):
            call(job)
    assert not (tmp_path / "job").exists()


@pytest.mark.slow
def test_another_job_does_not_take_the_folder(tmp_path: Path, submitted: Submit) -> None:
    job = job_in(tmp_path)
    backend = submitted(job)
    with pytest.raises(ConfigError, match="holds another job"):
        backend.submit(job.model_copy(update={"seed": 8}))
    # So early that no rank is there yet: cancelled all the same, and nothing was written.
    backend.cancel(job)
    assert backend.status(job).state == "cancelled"
