"""What each pod of a run executes: one node's launcher, which meets those of the other pods.

    python -m edgewright_fleet.retraining.kubernetes.in_pod --job job.json
        [--endpoint HOST:PORT --address HOST --node N]

Every pod knows by its index whether the others meet at it. That of node 0 also prints where the training stands,
since whoever asks the cluster may not see the volume.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from pathlib import Path
from typing import NoReturn

from edgewright.errors import EdgewrightError
from edgewright_fleet.retraining.job import TrainingJob
from edgewright_fleet.retraining.training.launch import LOCAL_ENDPOINT, Ended, Meeting, launch, read_job
from edgewright_fleet.retraining.training.notice import PREEMPTED
from edgewright_fleet.retraining.training.progress import figures

TOLD = "edgewright-progress "
"""What a line that tells of progress begins with; JSON follows."""
TELL_S = 5.0


def _tell(job: TrainingJob) -> None:
    print(TOLD + json.dumps(figures(job)), flush=True)  # noqa: T201


def _keep_telling(job: TrainingJob, over: threading.Event) -> None:
    while not over.wait(TELL_S):
        _tell(job)


def _leave(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(PREEMPTED)


def main() -> None:
    """The pod's command line; exit codes are the launcher's."""
    parser = argparse.ArgumentParser(description="Run the ranks of one node of a training job, in a pod.")
    parser.add_argument("--job", type=Path, required=True, help="JSON file of the job")
    parser.add_argument(
        "--endpoint", default=LOCAL_ENDPOINT, help="HOST:PORT of node 0, where the nodes meet"
    )
    parser.add_argument("--address", help="host name of this node, as the others know it")
    parser.add_argument("--node", type=int, default=0, help="which node this is, from 0")
    parser.add_argument("--wait-s", type=int, default=600, help="how long nodes wait for one another")
    given = parser.parse_args()
    # As process 1 of its container it has no default for the signal, and torch's agent has not begun to handle it.
    signal.signal(signal.SIGTERM, _leave)
    over = threading.Event()
    try:
        job = read_job(given.job)
        if given.node == 0:
            threading.Thread(target=_keep_telling, args=(job, over), daemon=True).start()
        meeting = (
            Meeting(given.endpoint, given.address, given.node == 0, given.wait_s) if given.address else None
        )
        ended = launch(job, given.job, meeting=meeting)
        over.set()
        if given.node == 0:
            _tell(job)
    except EdgewrightError as error:
        ended = Ended(2, str(error))
    except OSError as error:  # of the volume, most likely
        ended = Ended(2, f"{error.strerror or error} ({error.filename})")
    if ended.why:
        print(f"edgewright: {ended.why}", file=sys.stderr, flush=True)  # noqa: T201
    sys.exit(ended.code)


if __name__ == "__main__":
    main()
