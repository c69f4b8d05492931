"""`TrainingJob`, what a training backend is asked to run, and `Backend`, what it answers.

A job is one call of the user's training function on `nodes * processes_per_node` ranks under `torchrun`. Where it
runs is the backend's affair: the same function runs on this machine and in a cluster without a change.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import BaseModel, Field, JsonValue

from edgewright.artifact.manifest import Name
from edgewright.contract import CONTRACT

JobState = Literal["queued", "running", "suspended", "succeeded", "failed", "cancelled"]
ENDED: frozenset[JobState] = frozenset({"succeeded", "failed", "cancelled"})

Function = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
"""`module:function`, as Python imports it."""


class TrainingJob(BaseModel):
    """One training run: the function, its data and parameters, its ranks, and where it writes.

    `folder` is seen by every rank. In it lie `checkpoints/`, `progress.jsonl` (rank 0 alone writes it), `logs/`
    and `output/`: what the function leaves behind, `output/model.safetensors` above all.
    """

    model_config = CONTRACT
    schema_version: Literal[1] = Field(default=1, alias="schema")
    name: Name = Field(description="of the run; a job of the same name is the same job")
    function: Function = Field(description="the user's `train(context)`")
    code: Path | None = Field(default=None, description="folder that holds the module; None: it is installed")
    folder: Path
    data: dict[Name, str] = Field(default_factory=dict, description="data sets by name: a path, or a URL")
    parameters: dict[Name, JsonValue] = Field(default_factory=dict, description="what the function reads")
    weights: Path | None = Field(
        default=None, description=".safetensors that training begins with; None: the function's own"
    )
    seed: Annotated[int, Field(ge=0)] = 0
    nodes: Annotated[int, Field(gt=0)] = 1
    processes_per_node: Annotated[int, Field(gt=0)] = 1
    max_restarts: Annotated[int, Field(ge=0)] = Field(
        default=3, description="how often all ranks start again from the newest checkpoint after one died"
    )
    checkpoint_period_s: Annotated[float, Field(gt=0)] = Field(
        default=60.0, description="between two checkpoints at least; what a crash can cost"
    )


class JobStatus(BaseModel):
    """Where a job stands; the figures are the last that rank 0 reported."""

    model_config = CONTRACT
    state: JobState
    why: str = Field(default="", description="the reason, in words, where there is one")
    restarts: Annotated[int, Field(ge=0)] = 0
    step: Annotated[int, Field(ge=0)] | None = None
    steps: Annotated[int, Field(gt=0)] | None = Field(default=None, description="of the whole run, if known")
    loss: float | None = None
    left_s: Annotated[float, Field(ge=0)] | None = Field(default=None, description="predicted from the pace")
    checkpoint_step: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="of the newest checkpoint that is whole"
    )


class Backend(Protocol):
    """Runs jobs, which outlive the process that submitted them. All raise `EdgewrightError` with one line."""

    def submit(self, job: TrainingJob) -> None:
        """Start the job and return; one that runs or has ended is left as it is, which is no error."""

    def status(self, job: TrainingJob) -> JobStatus:
        """Where the job stands now."""

    def logs(self, job: TrainingJob, *, follow: bool = False) -> Iterator[str]:
        """Lines of all ranks, each after `[rank]`; with `follow` until the job ends."""

    def cancel(self, job: TrainingJob) -> None:
        """Stop the ranks after a checkpoint, within their notice. No error where the job has ended."""

    def resume(self, job: TrainingJob) -> None:
        """Start a job that was cancelled, suspended or failed again, from its newest whole checkpoint."""
