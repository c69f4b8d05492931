"""One rank: joins the others, calls the user's function, and says in one line why it failed.

    torchrun ... -m edgewright_fleet.retraining.training.worker --job job.json

Exit codes as in `launch`: 0 the function returned, 75 it was asked to stop, 2 the job or the machine does not fit,
1 anything else. The error is left where torchrun's agent looks for it (`record`), with the line of the user's code.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import record

from edgewright.errors import ConfigError, EdgewrightError

from ..job import TrainingJob
from .context import Stopped, TrainingContext
from .launch import read_job
from .notice import PREEMPTED, Notice, die_with_parent
from .state import seed_all


def run(job: TrainingJob, notice: Notice) -> int:
    """Run the user's function on this rank; the exit code. Raises what the function raises."""
    rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    device = _device(local_rank)
    seed_all(job.seed + rank)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        device_id=device if device.type == "cuda" else None,
    )
    restart = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    context = TrainingContext(job, local_rank=local_rank, restart=restart, device=device, notice=notice)
    train = load_function(job)
    try:
        train(context)
    except Stopped:
        pass
    context.close()
    dist.destroy_process_group()
    return PREEMPTED if context.stopping else 0


def load_function(job: TrainingJob) -> Callable[[TrainingContext], Any]:
    """The user's function. Raises `ConfigError`, and what importing its module raises."""
    name, _, attribute = job.function.partition(":")
    if job.code is not None:
        sys.path.insert(0, str(job.code))
    try:
        function = getattr(importlib.import_module(name), attribute, None)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise ConfigError(
            f"no module '{name}'", where=job.function, remedy="name the folder it is in"
        ) from None
    if not callable(function):
        raise ConfigError(f"the module has no function '{attribute}'", where=job.function)
    return function  # type: ignore[no-any-return]


def _device(local_rank: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"this machine has {torch.cuda.device_count()} GPUs and runs more processes",
            remedy="lower processes_per_node, or hide the GPUs (CUDA_VISIBLE_DEVICES=)",
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


class TrainingError(EdgewrightError):
    """The user's function raised; says what, and at which of its lines."""


def _in_one_line(error: Exception) -> TrainingError:
    frames = traceback.extract_tb(error.__traceback__)
    # The last line outside installed packages is most likely the user's own.
    own = [
        one
        for one in frames
        if "site-packages" not in one.filename and __package__.replace(".", "/") not in one.filename
    ]
    frame = (own or frames)[-1]
    says = " ".join(str(error).split())
    where = f"{frame.filename}, line {frame.lineno}, in {frame.name}"
    return TrainingError(f"{type(error).__name__}{': ' if says else ''}{says}", where=where)


@record
def _main() -> int:
    parser = argparse.ArgumentParser(description="Run one rank of a training job, under torchrun.")
    parser.add_argument("--job", type=Path, required=True, help="JSON file of the job")
    arguments = parser.parse_args()
    notice = Notice(int(os.environ["LOCAL_WORLD_SIZE"]))
    try:
        return run(read_job(arguments.job), notice)
    except EdgewrightError:
        raise
    except Exception as error:
        traceback.print_exc()
        raise _in_one_line(error) from None


def main() -> None:
    """The worker's command line."""
    die_with_parent()
    try:
        code = _main()
    except EdgewrightError as error:
        print(f"edgewright: {error}", file=sys.stderr)  # noqa: T201 - the rank's log
        code = 2 if isinstance(error, ConfigError) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: a thread that still waits for a dead peer would keep a rank from ending.
    os._exit(code)


if __name__ == "__main__":
    main()
