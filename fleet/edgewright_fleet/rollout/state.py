"""What the engine knows, hears and says: `RolloutState` with its device records, the events and the actions.

The state is the whole memory of a rollout: it is stored as JSON, and a controller goes on from it alone.
How it changes is `engine.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, Field

from edgewright.artifact.manifest import Name
from edgewright.contract import CONTRACT
from edgewright.telemetry.reading import Reading
from edgewright.twin import DesiredState, ReleaseReference, ReportedState
from edgewright_fleet.rollout.measured import Comparison
from edgewright_fleet.rollout.records import DeviceRecord, Devices, Stand

RolloutPhase = Literal[
    "baseline", "updating", "observing", "reverting", "paused", "succeeded", "failed", "aborted"
]
ENDED: frozenset[RolloutPhase] = frozenset({"succeeded", "failed", "aborted"})
RESTING: frozenset[RolloutPhase] = ENDED | {"paused"}
"""Phases in which nothing happens by itself; a paused rollout can be continued or aborted."""
EXPOSED: tuple[Stand, ...] = ("asked", "censored", "committed", "failed", "reverting", "reverted", "stranded")


class RolloutState(BaseModel):
    """Everything the engine knows; what is stored and resumed from."""

    model_config = CONTRACT
    schema_version: Literal[1] = Field(default=1, alias="schema")
    name: Name
    release: ReleaseReference
    waves: tuple[tuple[Name, ...], ...] = Field(min_length=1)
    devices: Devices
    phase: RolloutPhase = "baseline"
    paused_in: RolloutPhase | None = Field(default=None, description="where a paused rollout goes on")
    wave: int = Field(default=0, ge=0, description="counted from 0")
    since_s: float = Field(description="when the phase began, Unix seconds")
    asked_s: float | None = Field(default=None, description="when a device was asked last, Unix seconds")
    paced_s: float = Field(default=0.0, description="before which pacing asks nobody, Unix seconds")
    controls: tuple[Name, ...] = Field(default=(), description="devices that wait, and show the old release")
    comparisons: dict[Name, Comparison] = Field(
        default_factory=dict, description="of devices on the release, each made once"
    )
    verdict: str | None = Field(default=None, description="why it rests, or reverts")
    ends_as: Literal["failed", "aborted", "succeeded"] = "failed"

    @property
    def exposed(self) -> tuple[str, ...]:
        """Devices that were ever told to run the release."""
        return tuple(self.devices.standing(*EXPOSED))

    def standing(self, *stands: Stand) -> dict[str, DeviceRecord]:
        """The devices that stand in one of `stands`, by name in order."""
        return {name: self.devices[name] for name in self.devices.standing(*stands)}


@dataclass(frozen=True)
class DeviceReported:
    """A device said what it runs and where it is with an update."""

    report: ReportedState

    @property
    def device(self) -> str:
        return self.report.device


@dataclass(frozen=True)
class DevicePresence:
    """A device came or went; `boot` tells the last will of an earlier start from the present one's."""

    device: str
    online: bool
    boot: str


@dataclass(frozen=True)
class WindowArrived:
    """A device's measurements of one period."""

    window: Reading

    @property
    def device(self) -> str:
        return self.window.device


DeviceEvent = DeviceReported | DevicePresence | WindowArrived


@dataclass(frozen=True)
class Tick:
    """Time passed."""


@dataclass(frozen=True)
class OperatorRequest:
    """What a person asked for: `by` whom, as user@host, and `why` in their words."""

    by: str = "the operator"
    why: str | None = None

    @property
    def words(self) -> str:
        return f"by {self.by}" + (f": {self.why}" if self.why else "")


class AbortRequested(OperatorRequest):
    """It is to stop, and to take exposed devices back."""


class PauseRequested(OperatorRequest):
    """No further device is to be told anything until it goes on."""


class PromoteRequested(OperatorRequest):
    """The rest of the observation of this wave is to be skipped."""


class ContinueRequested(OperatorRequest):
    """A paused rollout is to go on, with its time-outs begun anew."""


Event = DeviceEvent | Tick | OperatorRequest


@dataclass(frozen=True)
class SetDesired:
    """Tell a device what to run; None withdraws the wish, where there is nothing to go back to."""

    device: str
    desired: DesiredState | None


@dataclass(frozen=True)
class Decision:
    """Something was decided, in words, with the figures behind it, and who asked where a person did."""

    sentence: str
    evidence: dict[str, Any]
    by: str | None = None


Action = SetDesired | Decision
Step = tuple[RolloutState, list[Action]]
"""What an event leads to."""
