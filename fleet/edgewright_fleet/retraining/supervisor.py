"""The process that a job on this machine runs under: `training.launch`, and a file that says how it ended.

    python -m edgewright_fleet.retraining.supervisor --job job.json --lock 3

`LocalBackend` starts it with the job's lock as an open file, so that there is no moment in which nobody holds it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from pydantic import BaseModel

from edgewright.contract import CONTRACT, to_json
from edgewright.durable_file import write_durably
from edgewright.errors import EdgewrightError

from .job import JobState
from .training.launch import Ended, launch, read_job
from .training.notice import PREEMPTED


class EndedJob(BaseModel):
    """`ended.json`: the state that a job came to, and why."""

    model_config = CONTRACT
    state: JobState
    why: str = ""


def sign(lock: int, pid: int) -> None:
    """Write into the lock who holds it."""
    os.pwrite(lock, f"{pid:<12d}".encode(), 0)


def supervise(path: Path) -> EndedJob:
    """Run the job to its end, or until SIGTERM; what `ended.json` then says."""
    job = read_job(path)
    # Until torch's agent handles the signal itself.
    signal.signal(signal.SIGTERM, _leave)
    try:
        ended = launch(job, path)
    except SystemExit:
        ended = Ended(PREEMPTED, "stopped by SIGTERM")
    except EdgewrightError as error:
        ended = Ended(2, str(error))
    except Exception as error:  # noqa: BLE001 - whatever it was, the job's status says it
        ended = Ended(1, f"{type(error).__name__}: {' '.join(str(error).split())}")
    state: JobState = "succeeded" if ended.code == 0 else "failed"
    if ended.code == PREEMPTED:
        state = "cancelled" if (job.folder / "cancel").exists() else "suspended"
    document = EndedJob(state=state, why=ended.why)
    write_durably(job.folder / "ended.json", to_json(document))
    return document


def _leave(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(PREEMPTED)


def main() -> None:
    """The supervisor's command line."""
    parser = argparse.ArgumentParser(description="Supervise one training job on this machine.")
    parser.add_argument("--job", type=Path, required=True)
    parser.add_argument("--lock", type=int, required=True, help="file descriptor of the job's lock")
    arguments = parser.parse_args()
    os.set_inheritable(arguments.lock, False)
    sign(arguments.lock, os.getpid())
    ended = supervise(arguments.job)
    if ended.why:
        print(ended.why, file=sys.stderr, flush=True)  # noqa: T201 - the job's log


if __name__ == "__main__":
    main()
