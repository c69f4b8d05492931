"""Runs a job's ranks on this node under torchrun's own agent; one line on why they ended, and an exit code.

    python -m edgewright_fleet.retraining.training.launch --job job.json [--endpoint HOST:PORT]

runs `nodes * processes_per_node` ranks of `edgewright_fleet.retraining.training.worker`; with several nodes, run it
once on each, with one endpoint that all of them reach (node 0 listens there). The ranks' lines are printed after
`[rank]`, and kept in the job's `logs/`.

| exit code | what it means |
| --- | --- |
| 0 | the function returned on every rank |
| 75 | the ranks were asked to stop (SIGTERM), and can go on from the newest checkpoint |
| 2 | the job or the machine does not fit: a restart changes nothing |
| 1 | a rank failed more often than `max_restarts` |
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewright.contract import from_json
from edgewright.durable_file import storage_error
from edgewright.errors import EdgewrightError

from ..job import TrainingJob
from .notice import NOTICE_S, PREEMPTED

WORKER = "edgewright_fleet.retraining.training.worker"
LOCAL_ENDPOINT = "localhost:0"
"""A free port of this machine, for a job on one node."""


@dataclass(frozen=True)
class Meeting:
    """Where the launchers of several nodes meet, said by whoever started them, not guessed from host names."""

    endpoint: str
    """HOST:PORT, of node 0."""
    address: str
    """Host name of this node, as the others know it. Nodes are ordered by it."""
    here: bool
    """This is node 0."""
    wait_s: int
    """How long nodes wait for one another."""


@dataclass(frozen=True)
class Ended:
    """How a launch ended: the launcher's exit code, and why in one line (empty where all went well)."""

    code: int
    why: str = ""


def read_job(path: Path) -> TrainingJob:
    """The job in a JSON file. Raises `ConfigError`, `StorageError`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise storage_error(error, path) from None
    return from_json(TrainingJob, data, where=str(path))


def launch(
    job: TrainingJob, job_file: Path, *, endpoint: str = LOCAL_ENDPOINT, meeting: Meeting | None = None
) -> Ended:
    """Run the ranks of this node until they end or SIGTERM comes; `meeting`: as one node of several."""
    # The shared store of the default settings races with the ranks' own: recovery then takes twice as long, or fails.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    os.environ["PYTHONUNBUFFERED"] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // job.processes_per_node)))
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logs = job.folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    config = LaunchConfig(
        min_nodes=job.nodes,
        max_nodes=job.nodes,
        nproc_per_node=job.processes_per_node,
        run_id=job.name,
        rdzv_backend="c10d",
        rdzv_endpoint=meeting.endpoint if meeting else endpoint,
        rdzv_configs={
            "is_host": meeting.here,
            "join_timeout": meeting.wait_s,
            "read_timeout": meeting.wait_s,
        }
        if meeting
        else {},
        local_addr=meeting.address if meeting else None,
        max_restarts=job.max_restarts,
        logs_specs=DefaultLogsSpecs(log_dir=str(logs), redirects=Std.ALL, tee=Std.ALL),
        log_line_prefix_template="[${rank}] ",
        shutdown_timeout=int(NOTICE_S) + 3,
    )
    try:
        elastic_launch(config, sys.executable)("-u", "-m", WORKER, "--job", str(job_file))
    except SignalException as error:
        return Ended(PREEMPTED, f"stopped by {signal.Signals(error.sigval).name}")
    except ChildFailedError as error:
        return _why(error.failures)
    except RendezvousError as error:
        return Ended(PREEMPTED, f"the other nodes are gone ({error})")
    return Ended(0)


def _why(failures: Mapping[int, Any]) -> Ended:
    """The failure that the others follow from: a rank that was killed, else the first that raised.

    A rank that lost a peer raises an error of its own, at times before its launcher sees that the peer is dead.
    """

    def order(rank: int) -> tuple[bool, bool, int]:
        failure = failures[rank]
        killed = failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM
        return (not killed, not isinstance(failure.message, dict), failure.timestamp)

    rank = min(failures, key=order)
    failure = failures[rank]
    if failure.exitcode == PREEMPTED:
        return Ended(PREEMPTED, f"rank {rank} was asked to stop")
    if failure.exitcode < 0:
        return Ended(1, f"rank {rank} was killed by {signal.Signals(-failure.exitcode).name}")
    if isinstance(failure.message, dict):
        return Ended(failure.exitcode, f"rank {rank}: {failure.message['message']}")
    return Ended(failure.exitcode, f"rank {rank} ended with exit code {failure.exitcode}")


def main() -> None:
    """The launcher's command line."""
    parser = argparse.ArgumentParser(description="Run the ranks of a training job on this node.")
    parser.add_argument("--job", type=Path, required=True, help="JSON file of the job")
    parser.add_argument("--endpoint", default=LOCAL_ENDPOINT, help="HOST:PORT where the nodes meet")
    arguments = parser.parse_args()
    try:
        ended = launch(read_job(arguments.job), arguments.job, endpoint=arguments.endpoint)
    except EdgewrightError as error:
        ended = Ended(2, str(error))
    if ended.why:
        print(f"edgewright: {ended.why}", file=sys.stderr, flush=True)  # noqa: T201
    sys.exit(ended.code)


if __name__ == "__main__":
    main()
