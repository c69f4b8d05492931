"""What is done with runs from outside: begun, looked at, cancelled; and `backend_of`, where training runs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from edgewright.contract import to_json
from edgewright.errors import EdgewrightError, RetrainingError
from edgewright_fleet.retraining.job import ENDED, Backend
from edgewright_fleet.retraining.run import Run, RunDrivenError, begin
from edgewright_fleet.retraining.spec import RetrainingSpec, check_files, load_spec
from edgewright_fleet.retraining.stages.step import request_stop
from edgewright_fleet.retraining.stages.training import job_of


def backend_of(spec: RetrainingSpec) -> Backend:
    """Where the training of a retraining runs; its libraries are imported for it alone."""
    if (settings := spec.training.kubernetes) is not None:
        from edgewright_fleet.retraining.kubernetes.backend import KubernetesBackend, connect

        return KubernetesBackend(settings, connect(settings))
    from edgewright_fleet.retraining.local import LocalBackend

    return LocalBackend()


def by_hand(spec: RetrainingSpec, why: str, by: str, at: datetime) -> Run:
    """A run that somebody asked for. Raises `ConfigError` where what it will need is not there."""
    check_files(spec)
    says = f"by hand, by {by}" + (f": {why}" if why else "")
    return begin(
        spec.runs, spec.name, to_json(spec).decode(), says, {"kind": "by hand", "by": by, "why": why}, at
    )


def described(run: Run) -> dict[str, Any]:
    """Where a run is, for a table or a script; training figures are there while it trains and afterwards."""
    links = run.chain.links
    document: dict[str, Any] = {
        "run": run.name,
        "folder": str(run.folder),
        "standing": run.standing,
        "stage": run.next_stage,
        "says": run.says,
        "state": None,
        "step": None,
        "steps": None,
        "loss": None,
        "left_s": None,
        "restarts": None,
        "why": None,
    }
    if any(link.kind == "data" for link in links):
        spec = load_spec(run.spec_path)
        try:
            status = backend_of(spec).status(job_of(run, spec))
        except EdgewrightError as error:
            # Not submitted yet, or a cluster that is away: the run is still to be seen.
            return document | {"why": str(error)}
        document |= status.model_dump(include={"state", "step", "steps", "loss", "restarts", "why"})
        document["left_s"] = None if status.state in ENDED else status.left_s
    return document


def training_logs(run: Run, *, follow: bool) -> Iterator[str]:
    """Lines of all ranks. Raises `RetrainingError` where nothing was trained yet."""
    if run.chain.last("data") is None:
        raise RetrainingError("has not come to its training yet", where=run.name)
    spec = load_spec(run.spec_path)
    return backend_of(spec).logs(job_of(run, spec), follow=follow)


def cancel(run: Run, why: str, at: datetime) -> str:
    """Stop a run, also one that another process drives; what came of it, in words."""
    try:
        with run.held():
            if run.chain.last("training") is None and run.chain.last("data") is not None:
                spec = load_spec(run.spec_path)
                backend_of(spec).cancel(job_of(run, spec))
            run.stop(why, at)
    except RunDrivenError:
        request_stop(run, why)
        return f"asked the process that drives {run.name} to stop"
    return f"{run.name} is stopped"
