"""`Comparison`: how a candidate did against the model that serves, both as artifacts on their own runtime.

The verdict is three-valued, and only `better` ships without a person. What was measured, with its intervals, is
here beside it; the candidate's model card carries all of it. Shares are 0 to 1, limits are in points (1 = 0.01).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from edgewright.artifact.manifest import (
    Difference,
    Digest,
    GateCheck,
    ModelFormat,
    Name,
    Precision,
    Proportion,
)
from edgewright.contract import CONTRACT

PromotionVerdict = Literal["better", "worse", "inconclusive"]
DataRole = Literal["held-out", "field"]
Share = Annotated[float, Field(ge=0, le=1)]
SignedShare = Annotated[float, Field(ge=-1, le=1)]


class ReleaseId(BaseModel):
    """One release, exactly."""

    model_config = CONTRACT
    name: Name
    version: Name
    digest: Digest = Field(description="of the release's index")

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"


class Criteria(BaseModel):
    """What a candidate must show to ship by itself, in points."""

    model_config = CONTRACT
    minimum_gain: Annotated[float, Field(ge=0, le=100)] = Field(
        default=0.0,
        description="points that it must gain on labelled field data: the whole interval lies above. 0: better at "
        "all, for certain",
    )
    max_loss: Annotated[float, Field(ge=0, le=100)] = Field(
        default=1.0,
        description="points that it may lose on the held-out set: the whole interval lies above that. 1.0: what "
        "the gate lets INT8 lose against float",
    )
    max_group_loss: Annotated[float, Field(ge=0, le=100)] = Field(
        default=0.0,
        description="points that a group may lose for certain; 0: no class or device group is given up for others",
    )
    max_latency_ratio: Annotated[float, Field(ge=1)] = Field(
        default=1.5,
        description="times the latency of the model that serves, measured on one host. 1.5: where a rollout stops",
    )
    without_field_data: Literal["inconclusive", "held-out"] = Field(
        default="inconclusive",
        description="what the gain is judged on where no field data is labelled: on nothing, so that a person "
        "decides, or on the held-out set, which says nothing of what has changed in the field",
    )


class GroupComparison(BaseModel):
    """A part of a data set; its interval is wider than 95 %, so that all groups' hold together with 95 %."""

    model_config = CONTRACT
    by: str = Field(description="what the samples are grouped by: `class`, or a key of the field data")
    group: str
    samples: int = Field(gt=0)
    serving: Share
    candidate: Share
    change: SignedShare
    low: SignedShare
    high: SignedShare


class SetComparison(BaseModel):
    """The two artifacts on one data set, paired sample by sample; `change` is the candidate minus the serving."""

    model_config = CONTRACT
    data: DataRole
    weighted: bool = Field(
        description="whether each sample counts with one over its probability of having been selected (the Hájek "
        "estimator); false: as they come"
    )
    serving: Proportion
    candidate: Proportion
    change: Difference
    unweighted: Difference | None = Field(
        default=None, description="the change as the samples come; None: `change` is that"
    )
    mcnemar_p: Share = Field(description="exact and two-sided, of the samples as they come")
    group_confidence: dict[str, Share] = Field(
        default_factory=dict,
        description="by what groups are made by, the level of each one's interval: the error of 5 % is shared out "
        "evenly among the keys, and a key's among its groups (Bonferroni)",
    )
    groups: tuple[GroupComparison, ...] = ()
    left_out: tuple[str, ...] = Field(default=(), description="keys with more groups than can be told apart")


class LatencyRatio(BaseModel):
    """Candidate over serving, one inference each in turn: the median ratio with its 95 % interval."""

    model_config = CONTRACT
    how: Literal["measured on host"] = "measured on host"
    where: str = Field(description="the processor, which is not the device's")
    ratio: float = Field(gt=0)
    low: float = Field(gt=0)
    high: float = Field(gt=0)
    pairs: int = Field(gt=0)


class ArtifactFigures(BaseModel):
    """One of the two artifacts of a comparison."""

    model_config = CONTRACT
    digest: Digest
    precision: Precision
    model_bytes: int = Field(gt=0)
    runtime: str = Field(description="the runtime and version that executed it; empty: it was not")


class ArtifactComparison(BaseModel):
    """The two releases on one profile in one format."""

    model_config = CONTRACT
    profile: Name
    format: ModelFormat
    serving: ArtifactFigures | None = Field(default=None, description="None: nothing serves there")
    candidate: ArtifactFigures | None = Field(default=None, description="None: the candidate is not for it")
    sets: tuple[SetComparison, ...] = ()
    latency: LatencyRatio | None = None
    why_not: str | None = Field(default=None, description="why quality could not be compared")


def alike(artifacts: Sequence[ArtifactComparison]) -> list[tuple[str, ArtifactComparison]]:
    """The artifacts whose quality was compared, by name; profiles that run one and the same file are one."""
    found: list[list[ArtifactComparison]] = []
    for artifact in artifacts:
        same = [one for one in found if (one[0].format, one[0].sets) == (artifact.format, artifact.sets)]
        if same:
            same[0].append(artifact)
        elif artifact.sets:
            found.append([artifact])
    return [(f"{', '.join(a.profile for a in group)} {group[0].format}", group[0]) for group in found]


class Comparison(BaseModel):
    """The whole comparison and what follows from it."""

    model_config = CONTRACT
    how: Literal["measured on host"] = "measured on host"
    serving: ReleaseId
    criteria: Criteria
    artifacts: tuple[ArtifactComparison, ...] = Field(min_length=1)
    checks: tuple[GateCheck, ...] = Field(min_length=1)
    verdict: PromotionVerdict = Field(
        description="worse if a check fails; else inconclusive if one of quality is; else better"
    )
    says: str = Field(description="the verdict in plain words")
    samples_needed: int | None = Field(
        default=None,
        gt=0,
        description="labelled field samples that would decide an inconclusive one; None: none would",
    )
