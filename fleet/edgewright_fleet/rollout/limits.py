"""`Gates`: the limits that a specification sets a release, each default with its reason."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, model_validator

from edgewright.contract import CONTRACT

Seconds = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]


class Gates(BaseModel):
    """What a release must show on a device, and on all of them together, before more devices get it."""

    model_config = CONTRACT
    alpha: Annotated[float, Field(ge=1e-9, le=0.5)] = Field(
        default=0.01,
        description="probability, at most, that a healthy release is aborted by the tests over devices, all "
        "looks and metrics together. 0.01: one night in a hundred is lost to chance",
    )
    power: Annotated[float, Field(gt=0.5, lt=1)] = Field(
        default=0.95,
        description="with which probability 'plan' states how many devices a bad release reaches at most. "
        "0.95: the usual one",
    )
    healthy_failure_share: Annotated[float, Field(ge=1e-6, lt=0.5)] = Field(
        default=0.01,
        description="share of devices that fail with any release (full disk, broken download, worn flash): "
        "so many stop nothing. 0.01: one in a hundred, as comparisons of rollout rules assume",
    )
    bad_failure_share: Share = Field(
        default=0.05,
        description="least share of failing devices that is worth a stop; greater ones are found sooner. "
        "0.05: nearer to the healthy share needs devices without end (0.02: some 1,200)",
    )
    max_p50_ratio: Annotated[float, Field(gt=0)] = Field(
        default=1.5,
        description="median latency over the same device's own before, a ratio. 1.5: a quiet device's median "
        "moves by a few per cent between runs, so this is past any noise",
    )
    max_p99_ratio: Annotated[float, Field(gt=0)] = Field(
        default=3.0,
        description="the same for the 99th percentile. 3: other work on the device moves a tail far more "
        "than a median",
    )
    max_energy_ratio: Annotated[float, Field(gt=0)] = Field(
        default=2.0,
        description="measured energy above idle of an inference over the same device's own before, a ratio. "
        "2: sensors of 1 % and an idle power that wanders lie far below",
    )
    max_typical_p50_ratio: Annotated[float, Field(gt=0)] = Field(
        default=1.1,
        description="the same ratio of the median device, the drift of devices on the old release taken off. "
        "1.1: a slowdown that one device cannot show and a fleet can",
    )
    max_typical_p99_ratio: Annotated[float, Field(gt=0)] = Field(
        default=1.3,
        description="the same for the 99th percentile. 1.3: tails wander, even of the median device",
    )
    max_typical_energy_ratio: Annotated[float, Field(gt=0)] = Field(
        default=1.15,
        description="the same for energy. 1.15: a device's idle power is known to a few per cent",
    )
    max_temperature_c: float = Field(
        default=85.0,
        description="of a device that was cooler before. 85: where a Raspberry Pi is throttled fully",
    )
    max_class_distance: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.5,
        description="Jensen–Shannon distance of the answers (shares of the top classes) from the same "
        "device's with the old release. 0.5: two sketches of 100 samples in 32 classes lie 0.33 "
        "apart by chance",
    )
    required: tuple[Literal["energy", "temperature", "drift"], ...] = Field(
        default=(),
        description="figures without which a device stays inconclusive. None: not every device has the sensors",
    )
    max_error_share: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.01,
        description="errors over inferences on each device, 0 to 1, beyond those that the same device had before "
        "and devices on the old release have meanwhile. 0.01: the agent's own rollback has caught what fails "
        "outright, what is left is rare inputs",
    )
    min_inferences: Annotated[int, Field(gt=0)] = Field(
        default=100,
        description="successful inferences on each device, before and after. 100: with fewer, a 99th "
        "percentile is the maximum",
    )
    window_s: Annotated[float, Field(ge=0)] = Field(
        default=60.0,
        description="seconds that a wave is observed at least after its last commit. 60: past the warm-up of "
        "caches, and several telemetry periods",
    )
    timeout_s: Seconds = Field(
        default=900.0,
        description="seconds for a baseline, a device's update, an observation or a revert; after it what is "
        "missing makes the rollout inconclusive. 900: a slow link fetches an artifact in it",
    )

    @model_validator(mode="after")
    def _can_tell_bad_from_healthy(self) -> Gates:
        if self.bad_failure_share <= self.healthy_failure_share:
            raise ValueError(
                "bad_failure_share must be greater than healthy_failure_share, or no test can tell"
            )
        return self

    @model_validator(mode="after")
    def _outlasts_the_window(self) -> Gates:
        if self.timeout_s <= self.window_s:
            raise ValueError("timeout_s must be greater than window_s, or no wave can pass in time")
        return self
