"""`TriggerPolicy`: when a retraining is started, and what it must be worth. Part of what an owner writes.

A rule that is left out never fires. Unknown keys are errors.
"""

from __future__ import annotations

from pydantic import BaseModel, Field

from edgewright.contract import CONTRACT
from edgewright_fleet.retraining.triggers.drift_test import DriftTest, StreamName

DAY_S = 86400.0


class DriftRule(BaseModel):
    """Enough devices of the group drift, and the group as a whole is far enough from where it was."""

    model_config = CONTRACT
    test: DriftTest = DriftTest()
    min_devices: int = Field(
        default=3, ge=1, description="in drift; a single device is its own lens, sensor or place"
    )
    min_share: float = Field(default=0.2, ge=0, le=1, description="of the group's settled devices")
    min_psi: float = Field(
        default=0.02, ge=0, description="of the pooled classes or confidence, less what chance gives"
    )
    streams: tuple[StreamName, ...] = Field(
        default=("classes", "confidence"),
        min_length=1,
        description="whose drift counts. Brightness changes with the weather, so that inputs are shown and do not "
        "count unless they are named; min_psi is not asked of them",
    )


class AccuracyRule(BaseModel):
    """The answers that were labelled are right less often than they must be."""

    model_config = CONTRACT
    least: float = Field(
        gt=0, lt=1, description="share of right answers below which the model is to be retrained"
    )
    margin: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="how far below it that is found soonest; nearer takes more labels",
    )
    alpha: float = Field(
        default=0.01,
        gt=0,
        lt=1,
        description="chance that it ever fires while the accuracy is `least` or better",
    )


class SamplesRule(BaseModel):
    """So many new samples came from the field since the last training."""

    model_config = CONTRACT
    count: int = Field(gt=0)


class ScheduleRule(BaseModel):
    """So long ago was the last training, or the release where there was none."""

    model_config = CONTRACT
    every_s: float = Field(gt=0, description="seconds")


class BenefitRule(BaseModel):
    """A training must be worth its cost. The owner's figures: nobody else knows them."""

    model_config = CONTRACT
    cost: float = Field(ge=0, description="of a training with everything after it, in any currency")
    value_per_1000: float = Field(
        ge=0, description="of 1,000 answers that are right and would have been wrong, in the same currency"
    )
    horizon_s: float = Field(
        default=30 * DAY_S, gt=0, description="seconds for which a new release is of use"
    )
    recoverable: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="of the answers that lie elsewhere, the share that a training puts right",
    )
    assumed_gain: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="share of answers put right where no evidence says; None: not judged",
    )


class TriggerPolicy(BaseModel):
    """All rules of a model; the first that holds, in this order, is the trigger: by hand always is."""

    model_config = CONTRACT
    accuracy: AccuracyRule | None = None
    drift: DriftRule | None = Field(default=None, description="`{}` for its defaults")
    samples: SamplesRule | None = None
    schedule: ScheduleRule | None = None
    cooldown_s: float = Field(
        default=7 * DAY_S, ge=0, description="seconds after a trigger in which there is no other, but by hand"
    )
    benefit: BenefitRule | None = Field(default=None, description="None: cost is not asked about")
