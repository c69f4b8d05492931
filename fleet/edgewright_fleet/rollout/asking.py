"""Whom a rollout asks, when, and what each is told: room, pace, maintenance windows and deferrals.

Pure, as all of the engine: from a state to a state with actions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from edgewright.twin import DesiredState
from edgewright_fleet.rollout.maintenance import is_open
from edgewright_fleet.rollout.observe import with_record
from edgewright_fleet.rollout.records import DeviceRecord, changed
from edgewright_fleet.rollout.spec import RolloutSpec
from edgewright_fleet.rollout.state import ENDED, RolloutState, SetDesired, Step
from edgewright_fleet.rollout.stopping import Tally, more_allowed

BURST_S = 1.0
"""How much pacing may catch up on: ticks are not exact, and a second's worth at once harms nobody."""


def due_devices(state: RolloutState) -> Iterator[str]:
    """Those of the waves so far that wait and can be reached, in the order of the waves."""
    if waiting := state.devices.at("waiting"):
        for wave in state.waves[: state.wave + 1]:
            for name in wave:
                if name in waiting and state.devices[name].online:
                    yield name


def may_be_updated(spec: RolloutSpec, now_s: float) -> Callable[[DeviceRecord], bool]:
    """Whether a device may be updated at this moment: in its maintenance window, and not in use."""
    open_: dict[str, bool] = {}

    def may(record: DeviceRecord) -> bool:
        if spec.maintenance:
            zone = record.time_zone or spec.time_zone
            if zone not in open_:
                open_[zone] = is_open(spec.maintenance, zone, now_s)
            if not open_[zone]:
                return False
        return (record.deferred_until_s or 0.0) <= now_s or record.deferrals > spec.max_deferrals

    return may


def lacks_baseline(record: DeviceRecord, spec: RolloutSpec) -> bool:
    """Whether a reachable device has not told yet how fast it is; one that serves nothing has nothing to tell."""
    return (
        record.online
        and record.before is not None
        and record.baseline.latency.count < spec.gates.min_inferences
    )


def ask_those_ready(state: RolloutState, spec: RolloutSpec, found: Tally, now_s: float) -> Step:
    """Tell as many of those that are due as room, pace and the test over devices allow."""
    room = spec.room(len(state.devices)) - state.devices.count("asked")
    room = min(room, more_allowed(found, state, spec))
    pause_s = 60.0 / spec.devices_per_minute if spec.devices_per_minute else 0.0
    paced_s = max(state.paced_s, now_s - BURST_S)
    may, told = may_be_updated(spec, now_s), dict[str, DeviceRecord]()
    for name in due_devices(state) if room > 0 and paced_s <= now_s else ():
        record = state.devices[name]
        if may(record) and not lacks_baseline(record, spec):
            told[name] = changed(record, stand="asked", wave=state.wave, asked_s=now_s)
            paced_s += pause_s
            if len(told) >= room or paced_s > now_s:
                break
    if not told:
        return state, []
    paced = {"asked_s": now_s, "paced_s": paced_s if pause_s else 0.0}
    wish = _wish(state)
    return (
        state.model_copy(update={"devices": state.devices.with_records(told), **paced}),
        [SetDesired(name, wish) for name in told],
    )


def _wish(state: RolloutState) -> DesiredState:
    return DesiredState(release=state.release, rollout=state.name)


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
    wish = _wish(state)
    return [
        *(SetDesired(name, wish) for name in state.devices.standing("asked", "censored")),
        *(revert(state, name) for name in state.devices.standing("reverting", "stranded")),
    ]


def with_changes(state: RolloutState, device: str, **changes: Any) -> RolloutState:
    """The state with some fields of one record changed."""
    return with_record(state, device, changed(state.devices[device], **changes))


def some_of(names: list[str]) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
