"""`Trigger`, the document with which a retraining begins, and `NotFired`, why there is none.

A trigger holds the policy and the evidence that it was decided on, whole: who doubts it decides again
(`decide.decide`) and gets the same.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, model_validator

from edgewright.artifact.manifest import Name
from edgewright.contract import CONTRACT
from edgewright_fleet.retraining.triggers.groups import GroupDrift
from edgewright_fleet.retraining.triggers.policy import TriggerPolicy

Kind = Literal["manual", "accuracy", "drift", "samples", "schedule"]


class LabelledAnswers(BaseModel):
    """How often the release was right, of answers that were labelled since it was rolled out.

    A random sample of all: of hard examples alone a model is always worse than it is.
    """

    model_config = CONTRACT
    labelled: int = Field(ge=0)
    correct: int = Field(ge=0)

    @model_validator(mode="after")
    def _no_more_than_there_are(self) -> LabelledAnswers:
        if self.correct > self.labelled:
            raise ValueError("correct: more than were labelled")
        return self


class ManualRequest(BaseModel):
    """A person wants it."""

    model_config = CONTRACT
    who: str = Field(min_length=1, max_length=200)
    why: str = Field(min_length=1, max_length=2000)


class GroupEvidence(BaseModel):
    """All that is known of a group when it is decided about. Times are Unix seconds."""

    model_config = CONTRACT
    fleet: Name
    model: Name
    release: str = Field(description="that the group runs, as NAME:VERSION")
    by: str = Field(
        default="profile", description="what makes the group: profile, release, or a label's name"
    )
    group: str
    at_s: float = Field(ge=0)
    released_s: float | None = Field(default=None, description="when the release was rolled out")
    drift: GroupDrift | None = None
    labels: LabelledAnswers | None = None
    new_samples: int = Field(default=0, ge=0, description="from the field since the last training")
    inferences_per_day: float | None = Field(
        default=None, ge=0, description="of the whole group; None: not known"
    )
    last_trained_s: float | None = None
    last_trigger_s: float | None = None
    request: ManualRequest | None = None


class Benefit(BaseModel):
    """What a training is expected to bring, predicted from the owner's figures."""

    model_config = CONTRACT
    gain: float = Field(ge=0, le=1, description="share of answers put right")
    value: float = Field(ge=0, description="over the horizon, in the policy's currency")
    cost: float = Field(ge=0)


class Trigger(BaseModel):
    """Why a model is trained again."""

    model_config = CONTRACT
    schema_version: Literal[1] = Field(default=1, alias="schema")
    kind: Kind
    says: str = Field(description="for people")
    evidence: GroupEvidence
    policy: TriggerPolicy
    benefit: Benefit | None = Field(default=None, description="None: not asked about, or nothing says")


class NotFired(BaseModel):
    """Why a model is not trained again."""

    model_config = CONTRACT
    schema_version: Literal[1] = Field(default=1, alias="schema")
    because: tuple[str, ...] = Field(min_length=1, description="for people, a sentence for each rule")
    evidence: GroupEvidence
