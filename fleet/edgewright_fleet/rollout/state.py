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
from edgewright.telemetry.window import TelemetryWindow
from edgewright.twin import DesiredState, ReleaseReference, ReportedState
from edgewright_fleet.rollout.measured import Comparison, Measured

RolloutPhase = Literal[
    "baseline", "updating", "observing", "reverting", "paused", "succeeded", "failed", "aborted"
]
ENDED: frozenset[RolloutPhase] = frozenset({"succeeded", "failed", "aborted"})
RESTING: frozenset[RolloutPhase] = ENDED | {"paused"}
"""Phases in which nothing happens by itself; a paused rollout can be continued or aborted."""

Stand = Literal["waiting", "asked", "censored", "committed", "failed", "reverting", "reverted", "stranded"]
"""Where a device is in a rollout.

`waiting`: not told anything. `asked`: told to run the release. `censored`: asked, and offline since before it
could answer in time. `committed`: runs the release. `failed`: refused it or left it. `reverting`: told to run
what it ran before. `reverted`: said that it does. `stranded`: cannot go back (it ran nothing before, or said
that it failed to).
"""


class DeviceRecord(BaseModel):
    """One device in one rollout."""

    model_config = CONTRACT
    profile: str
    online: bool = False
    boot: str | None = Field(default=None, description="of the newest report or status")
    past_boots: tuple[str, ...] = Field(default=(), description="whose late messages no longer count")
    sequence: int = Field(default=-1, description="of the newest report of this boot")
    stand: Stand = "waiting"
    wave: int | None = Field(default=None, description="in which it was asked")
    asked_s: float | None = Field(default=None, description="when it was asked, Unix seconds")
    before: ReleaseReference | None = Field(default=None, description="what it ran when it was asked")
    running: ReleaseReference | None = None
    baseline: Measured = Measured()
    after: Measured = Measured()
    control: Measured | None = Field(
        default=None, description="of the old release since the wave began, while it was not asked itself"
    )
    compared: Comparison | None = Field(default=None, description="made once, with what was known then")
    reason: str | None = None


class RolloutState(BaseModel):
    """Everything the engine knows; what is stored and resumed from."""

    model_config = CONTRACT
    schema_version: Literal[1] = Field(default=1, alias="schema")
    name: Name
    release: ReleaseReference
    waves: tuple[tuple[Name, ...], ...] = Field(min_length=1)
    devices: dict[Name, DeviceRecord]
    phase: RolloutPhase = "baseline"
    paused_in: RolloutPhase | None = Field(default=None, description="where a paused rollout goes on")
    wave: int = Field(default=0, ge=0, description="counted from 0")
    since_s: float = Field(description="when the phase began, Unix seconds")
    verdict: str | None = Field(default=None, description="why it rests, or reverts")
    ends_as: Literal["failed", "aborted"] = "failed"

    @property
    def exposed(self) -> tuple[str, ...]:
        """Devices that were ever told to run the release."""
        return tuple(name for name, record in self.devices.items() if record.stand != "waiting")

    def standing(self, *stands: Stand) -> dict[str, DeviceRecord]:
        """The devices that stand in one of `stands`."""
        return {name: record for name, record in self.devices.items() if record.stand in stands}


@dataclass(frozen=True)
class DeviceReported:
    """A device said what it runs and where it is with an update."""

    report: ReportedState


@dataclass(frozen=True)
class DevicePresence:
    """A device came or went; `boot` tells the last will of an earlier start from the present one's."""

    device: str
    online: bool
    boot: str


@dataclass(frozen=True)
class WindowArrived:
    """A device's measurements of one period."""

    window: TelemetryWindow


DeviceEvent = DeviceReported | DevicePresence | WindowArrived


@dataclass(frozen=True)
class Tick:
    """Time passed."""


@dataclass(frozen=True)
class AbortRequested:
    """An operator wants it to stop."""


@dataclass(frozen=True)
class ContinueRequested:
    """An operator wants a paused rollout to go on, with its time-outs begun anew."""


Event = DeviceEvent | Tick | AbortRequested | ContinueRequested


@dataclass(frozen=True)
class SetDesired:
    """Tell a device what to run; None withdraws the wish, where there is nothing to go back to."""

    device: str
    desired: DesiredState | None


@dataclass(frozen=True)
class Decision:
    """Something was decided, in words, with the figures behind it."""

    sentence: str
    evidence: dict[str, Any]


Action = SetDesired | Decision
