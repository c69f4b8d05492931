"""Whom a rollout asks, when, and what each is told: room, pace, maintenance windows and deferrals.

Pure, as all of the engine: from a state to a state with actions.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edgewright.twin import DesiredState
from edgewright_fleet.rollout.maintenance import is_open
from edgewright_fleet.rollout.observe import with_record
from edgewright_fleet.rollout.records import DeviceRecord
from edgewright_fleet.rollout.spec import RolloutSpec
from edgewright_fleet.rollout.state import ENDED, Action, RolloutState, SetDesired, Step
from edgewright_fleet.rollout.stopping import Tally, more_allowed

BURST_S = 1.0
"""How much pacing may catch up on: ticks are not exact, and a second's worth at once harms nobody."""


def due_devices(state: RolloutState) -> list[str]:
    """Those of the waves so far that wait and can be reached, in the order of the waves."""
    waiting = state.devices.waiting
    if not waiting:
        return []
    members = (name for wave in state.waves[: state.wave + 1] for name in wave if name in waiting)
    return [name for name in members if state.devices[name].online]


def not_now(state: RolloutState, names: list[str], spec: RolloutSpec, now_s: float) -> set[str]:
    """Those that are outside their maintenance window, or in use and still have deferrals left."""
    open_: dict[str, bool] = {}
    found: set[str] = set()
    for name in names:
        record = state.devices[name]
        if spec.maintenance:
            zone = record.time_zone or spec.time_zone
            if zone not in open_:
                open_[zone] = is_open(spec.maintenance, zone, now_s)
            if not open_[zone]:
                found.add(name)
        if (record.deferred_until_s or 0.0) > now_s and record.deferrals <= spec.max_deferrals:
            found.add(name)
    return found


def lacks_baseline(record: DeviceRecord, spec: RolloutSpec) -> bool:
    """Whether a reachable device has not told yet how fast it is; one that serves nothing has nothing to tell."""
    return (
        record.online
        and record.before is not None
        and record.baseline.latency.count < spec.gates.min_inferences
    )


def ask_those_ready(
    state: RolloutState, spec: RolloutSpec, found: Tally, names: list[str], now_s: float
) -> Step:
    """Tell as many of these as room, pace and the test over devices allow."""
    actions: list[Action] = []
    room = spec.room(len(state.devices)) - state.devices.count("asked")
    room = min(room, more_allowed(found, state, spec))
    pause_s = 60.0 / spec.devices_per_minute if spec.devices_per_minute else 0.0
    paced_s = max(state.paced_s, now_s - BURST_S)
    for name in names:
        if room <= 0 or paced_s > now_s:
            break
        if not lacks_baseline(state.devices[name], spec):
            state = with_changes(state, name, stand="asked", wave=state.wave, asked_s=now_s)
            actions.append(ask(state, name))
            room, paced_s = room - 1, paced_s + pause_s
    if actions:
        state = state.model_copy(update={"asked_s": now_s, "paced_s": paced_s if pause_s else 0.0})
    return state, actions


def ask(state: RolloutState, device: str) -> SetDesired:
    """What a device is told to run."""
    return SetDesired(device, DesiredState(release=state.release, rollout=state.name))


def revert(state: RolloutState, device: str) -> SetDesired:
    """What a device is told to go back to; nothing where it ran nothing."""
    before = state.devices[device].before
    if before is None:
        return SetDesired(device, None)
    return SetDesired(device, DesiredState(release=before, rollout=state.name, revert=True))


def resend(state: RolloutState) -> list[SetDesired]:
    """What devices were told, to be told again after the controller was killed; telling twice is harmless."""
    if state.phase in ENDED:
        return []
    return [
        *(ask(state, name) for name in state.devices.standing("asked", "censored")),
        *(revert(state, name) for name in state.devices.standing("reverting", "stranded")),
    ]


def with_changes(state: RolloutState, device: str, **changes: Any) -> RolloutState:
    """The state with some fields of one record changed."""
    return with_record(state, device, replace(state.devices[device], **changes))


def some_of(names: list[str]) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
