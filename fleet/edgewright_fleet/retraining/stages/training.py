"""The stage `training`: a job that its backend runs, watched until it ends."""

from __future__ import annotations

from pathlib import Path

from edgewright.artifact.layout import digest_of_file
from edgewright_fleet.retraining.job import ENDED, JobStatus, TrainingJob
from edgewright_fleet.retraining.run import Run, names, numbered
from edgewright_fleet.retraining.spec import RetrainingSpec
from edgewright_fleet.retraining.stages.conversion import check_model
from edgewright_fleet.retraining.stages.promotion import signed_by
from edgewright_fleet.retraining.stages.step import Step, Tools, requested_stop

POLL_S = 0.5
"""Between two looks at a training job."""


def job_of(run: Run, spec: RetrainingSpec) -> TrainingJob:
    """The training job of a run."""
    training = spec.training
    data = {"training": spec.data.training}
    if (run.folder / "field").is_dir():
        data["field_set"] = str(run.folder / "field")
    if (run.folder / "field.npz").is_file():
        data["field"] = str(run.folder / "field.npz")
    return TrainingJob(
        name=run.name,
        function=training.function,
        code=spec.code,
        folder=run.folder / "training",
        data=data,
        parameters=training.parameters,
        weights=weights_of(run, spec),
        seed=training.seed,
        nodes=training.nodes,
        processes_per_node=training.processes_per_node,
        max_restarts=training.max_restarts,
        checkpoint_period_s=training.checkpoint_period_s,
    )


def weights_of(run: Run, spec: RetrainingSpec) -> Path | None:
    """What training begins with: the weights of the newest run before this one whose release stands."""
    for name in reversed(names(run.folder.parent, spec.name)):
        before = Run(run.folder.parent / name)
        if numbered(name) < numbered(run.name) and before.chain.last("release") and not before.taken_back:
            return before.folder / "training" / "output" / "model.safetensors"
    return spec.weights


def train(run: Run, spec: RetrainingSpec, tools: Tools) -> Step:
    check_model(spec)  # hours of training must not end in a name that was mistyped
    signed_by(spec)
    backend, job = tools.backend(spec), job_of(run, spec)
    backend.submit(job)
    if (status := backend.status(job)).state in ENDED and status.state != "succeeded":
        backend.resume(job)  # what ended so is an earlier attempt
    started = tools.now()
    shown: tuple[str, int] | None = None
    while (status := backend.status(job)).state not in ENDED:
        step, steps = status.step or 0, status.steps or 1
        if shown != (shown := (status.state, 100 * step // steps)):
            tools.show(max(step - 1, 0), steps, training_words(status), status.left_s or 0.0)
        if why := requested_stop(run):
            backend.cancel(job)
            return Step(why, {}, stops=True)
        tools.sleep(POLL_S)
    weights = job.folder / "output" / "model.safetensors"
    if status.state != "succeeded":
        return Step(f"training {status.state}: {status.why}", {}, stops=True)
    if not weights.is_file():
        return Step("the training function left no model: it must call context.save(module)", {}, stops=True)
    seconds = (tools.now() - started).total_seconds()
    loss = "" if status.loss is None else f", loss {status.loss:.4g}"
    return Step(
        f"trained {status.step or 0} steps on {job.nodes * job.processes_per_node} ranks{loss}",
        {
            "function": job.function,
            "parameters": dict(job.parameters),
            "seed": job.seed,
            "backend": spec.training.backend,
            "ranks": job.nodes * job.processes_per_node,
            "restarts": status.restarts,
            "loss": status.loss,
            "seconds": round(seconds, 1),
            "weights": digest_of_file(weights),
            "began_with": digest_of_file(job.weights) if job.weights else None,
        },
    )


def training_words(status: JobStatus) -> str:
    """Where a training job is, in few words."""
    loss = "" if status.loss is None else f": loss {status.loss:.4g}"
    again = f", started again {status.restarts} times" if status.restarts else ""
    return f"training {status.state}{loss}{again}"
