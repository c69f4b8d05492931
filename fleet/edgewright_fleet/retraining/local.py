"""`LocalBackend`: training jobs on this machine, each under a supervisor that outlives whoever submitted it.

All that is known of a job lies in its folder, beside what `TrainingJob` says of it:

| file | what it says |
| --- | --- |
| `job.json` | the job, as it was submitted or resumed last |
| `supervisor.lock` | locked by the supervisor while it lives, with its process id in it; the kernel frees it |
| `cancel` | a person asked for the end |
| `ended.json` | how it ended, written last; without it and without the lock, the supervisor was killed |
| `logs/job.log` | lines of all ranks and all starts; `logs/*/` holds each rank's own |

The kernel kills the ranks with their supervisor (see `training.notice`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from edgewright.contract import from_json, to_json
from edgewright.durable_file import make_folder, storage_error, write_durably
from edgewright.errors import ConfigError

from . import supervisor
from .job import JobStatus, TrainingJob
from .supervisor import EndedJob, sign
from .training.launch import read_job
from .training.notice import NOTICE_S
from .training.progress import figures
from .training.whole import newest_whole

_LOCK_TRIES = 20
"""10 ms apart: who asks for a job's status holds its lock for an instant."""
_POLL_S = 0.05
_KILL_S = 30.0
"""A killed process is gone at once, unless its disk hangs."""
PATIENCE_S = NOTICE_S + 10
"""Of `cancel`: ranks have their notice, and torch's agent 3 s more; after that all are killed."""


class LocalBackend:
    """Runs a job's ranks on this machine; see `Backend` for the calls."""

    def submit(self, job: TrainingJob) -> None:
        """Start the job and return.

        Starts nothing where it runs or has ended. Raises `ConfigError` where it does not fit this machine,
        or where another job lies in its folder.
        """
        job = _absolute(job)
        _check(job)
        lock = _claim(job.folder)
        try:
            before = _submitted(job)
            if before is not None and before != job:
                raise ConfigError(
                    "holds another job", where=str(job.folder), remedy="choose another folder or name"
                )
            if lock is None:
                return
            if before is None:
                _start(job, lock)
        finally:
            if lock is not None:
                os.close(lock)

    def status(self, job: TrainingJob) -> JobStatus:
        """Where the job stands. Raises `ConfigError` where it was never submitted."""
        job = _absolute(job)
        _must_exist(job)
        running = _runs(job.folder)
        told = figures(job)
        if running:
            return JobStatus(state="running", **told)
        ended = _ended(job)
        return JobStatus(state=ended.state, why=ended.why, **told)

    def logs(self, job: TrainingJob, *, follow: bool = False) -> Iterator[str]:
        """Lines of all ranks, each after `[rank]`, and of the supervisor, after `[-]`."""
        job = _absolute(job)
        _must_exist(job)
        with (job.folder / "logs" / "job.log").open(encoding="utf-8", errors="replace") as file:
            rest = ""
            while True:
                runs = follow and _runs(job.folder)  # asked before reading: what it wrote last is not missed
                while text := file.readline():
                    rest += text
                    if rest.endswith("\n"):
                        yield _after_rank(rest.rstrip("\n"))
                        rest = ""
                if not runs:
                    break
                time.sleep(_POLL_S)
            if rest:
                yield _after_rank(rest)

    def cancel(self, job: TrainingJob) -> None:
        """Have the ranks write a checkpoint and stop, kill them after their notice; returns when they are gone."""
        job = _absolute(job)
        _must_exist(job)
        if _runs(job.folder):
            write_durably(job.folder / "cancel", b"")
            why = "stopped before it began"
            if not _signal(job.folder, signal.SIGTERM, within_s=PATIENCE_S):
                _signal(job.folder, signal.SIGKILL, within_s=_KILL_S)
                why = "killed: it did not stop within its notice"
        else:
            why = "its supervisor had been killed"
        if not (job.folder / "ended.json").exists():
            write_durably(job.folder / "ended.json", to_json(EndedJob(state="cancelled", why=why)))

    def resume(self, job: TrainingJob) -> None:
        """Start again from the newest whole checkpoint; starts nothing where the job runs or has succeeded."""
        job = _absolute(job)
        _check(job)
        _must_exist(job)
        lock = _claim(job.folder)
        if lock is None:
            return
        try:
            if _ended(job).state != "succeeded":
                _start(job, lock)
        finally:
            os.close(lock)


def _absolute(job: TrainingJob) -> TrainingJob:
    """The job with paths that hold wherever it is resumed from."""
    data = {name: at if "://" in at else os.path.abspath(at) for name, at in job.data.items()}  # noqa: PTH100
    return job.model_copy(
        update={
            "folder": job.folder.absolute(),
            "code": job.code and job.code.absolute(),
            "weights": job.weights and job.weights.absolute(),
            "data": data,
        }
    )


def _check(job: TrainingJob) -> None:
    where = f"job '{job.name}'"
    if job.nodes != 1:
        raise ConfigError(f"asks for {job.nodes} nodes", where=where, remedy="this machine is one: nodes = 1")
    if job.weights is not None and not job.weights.is_file():
        raise ConfigError("no such file", where=f"weights: {job.weights}")
    if job.code is not None:
        module = job.code.joinpath(*job.function.partition(":")[0].split("."))
        if not module.is_dir() and not module.with_name(f"{module.name}.py").is_file():
            raise ConfigError(f"no module {module.relative_to(job.code)}", where=str(job.code))


def _submitted(job: TrainingJob) -> TrainingJob | None:
    path = job.folder / "job.json"
    return read_job(path) if path.exists() else None


def _must_exist(job: TrainingJob) -> None:
    if not (job.folder / "job.json").exists():
        raise ConfigError("was never submitted", where=f"job '{job.name}' in {job.folder}")


def _ended(job: TrainingJob) -> EndedJob:
    """How a job that does not run has ended."""
    path = job.folder / "ended.json"
    try:
        return from_json(EndedJob, path.read_bytes(), where=str(path))
    except FileNotFoundError:
        step = newest_whole(job.folder)
        goes_on = "the start" if step is None else f"step {step}"
        return EndedJob(
            state="failed",
            why=f"its supervisor was killed, or the machine stopped; resume goes on from {goes_on}",
        )
    except OSError as error:
        raise storage_error(error, path) from None


def _claim(folder: Path) -> int | None:
    """The lock of a job that does not run; None where a supervisor holds it. Raises `StorageError`."""
    path = folder / "supervisor.lock"
    try:
        make_folder(folder)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise storage_error(error, path) from None
    for _ in range(_LOCK_TRIES):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        time.sleep(0.01)
    os.close(lock)
    return None


def _runs(folder: Path) -> bool:
    """Whether a supervisor holds the job's lock."""
    try:
        lock = os.open(folder / "supervisor.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _start(job: TrainingJob, lock: int) -> None:
    """Start the supervisor, which inherits the lock."""
    path = job.folder / "job.json"
    for stale in ("ended.json", "cancel"):
        (job.folder / stale).unlink(missing_ok=True)
    write_durably(path, to_json(job))
    make_folder(job.folder / "logs")
    with (job.folder / "logs" / "job.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", supervisor.__name__, "--job", str(path), "--lock", str(lock)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=(lock,),
        )
    sign(lock, process.pid)
    process.returncode = 0  # it is nobody's child to wait for: no warning when this object goes


def _signal(folder: Path, number: signal.Signals, *, within_s: float) -> bool:
    """Signal a job's supervisor; whether it was gone in time."""
    with contextlib.suppress(ProcessLookupError, ValueError, FileNotFoundError):
        process = os.pidfd_open(int((folder / "supervisor.lock").read_bytes() or b"-1"))
        try:
            if _runs(folder):  # so that the process id is still the supervisor's
                signal.pidfd_send_signal(process, number)
        finally:
            os.close(process)
    until_s = time.monotonic() + within_s
    while _runs(folder):
        if time.monotonic() > until_s:
            return False
        time.sleep(_POLL_S)
    return True


def _after_rank(line: str) -> str:
    return line if re.match(r"\[\d+\] ?", line) else f"[-] {line}"
