"""The loop that joins the engine, the target and the store.

The state is stored before its actions are sent, and a controller that comes after a crash sends them again:
telling a device twice what to run is harmless, forgetting to is not.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

from edgewright.artifact.layout import Layout
from edgewright.artifact.release import VERDICT, open_release
from edgewright.errors import RolloutError
from edgewright.twin import ReleaseReference
from edgewright_fleet.devices import DeviceView, snapshot
from edgewright_fleet.rollout.engine import advance, resend
from edgewright_fleet.rollout.ports import Store, Target
from edgewright_fleet.rollout.spec import RolloutSpec, plan_waves
from edgewright_fleet.rollout.state import (
    ENDED,
    RESTING,
    AbortRequested,
    Action,
    ContinueRequested,
    Decision,
    DeviceEvent,
    DeviceRecord,
    Event,
    RolloutState,
    SetDesired,
    Tick,
)

TICK_S = 0.2
"""Seconds between looks at the clock: far below any time-out, and next to no work."""
Observer = Callable[[RolloutState, list[Decision], list[DeviceEvent]], None]
"""Told at every turn: the state, what was decided, and the device events behind it."""


def start_rollout(
    spec: RolloutSpec,
    target: Target,
    store: Store,
    observer: Observer | None = None,
    *,
    clock: Callable[[], float] = time.time,
) -> RolloutState:
    """Begin a rollout and carry it to its end; a rollout of that name that was cut short or paused goes on.

    Raises `RolloutError` where it has ended already or another controller acts on it, `BrokerError`,
    `ArtifactError` where the registry does not hold the release.
    """
    if spec.name not in store.names():
        store.create(spec, _first_state(spec, snapshot(target), clock()))
    elif store.load(spec.name)[0] != spec:
        raise RolloutError(
            f"rollout '{spec.name}' was begun with another specification", remedy="choose another name"
        )
    return run_rollout(spec.name, target, store, observer, clock=clock)


def run_rollout(
    name: str,
    target: Target,
    store: Store,
    observer: Observer | None = None,
    *,
    clock: Callable[[], float] = time.time,
) -> RolloutState:
    """Carry a stored rollout to its end, or until it pauses, and return its last state.

    Raises `RolloutError` where it has ended already, a newer rollout of the fleet has followed it, or another
    controller acts on it.
    """
    spec, state = store.load(name)
    if state.phase in ENDED:
        raise RolloutError(f"rollout '{name}' has ended ({state.phase})", remedy="choose another name")
    if (newest := store.newest_of(spec.fleet)) not in (None, name):
        raise RolloutError(f"rollout '{newest}' of fleet '{spec.fleet}' has followed '{name}'")
    owner = uuid.uuid4().hex
    store.hold_lease(name, owner, clock())
    try:
        # Read again: until the lease was ours another controller may have gone on.
        spec, state = store.load(name)
        for told in resend(state):
            target.set_desired(told.device, told.desired)
        pending: list[Event] = list(target.known())
        if state.phase == "paused" and not store.abort_requested(name):
            pending.append(ContinueRequested())
        renewed = time.monotonic()
        while True:
            arrived = list(target.events(TICK_S))
            if store.abort_requested(name):
                pending.append(AbortRequested())
            if time.monotonic() - renewed > store.lease_s / 3:
                store.hold_lease(name, owner, clock())
                renewed = time.monotonic()
            before, actions = state, list[Action]()
            for event in (*pending, *arrived, Tick()):
                state, more = advance(state, spec, event, clock())
                actions += more
            pending.clear()
            decisions = [action for action in actions if isinstance(action, Decision)]
            if state is not before:
                store.save(state, decisions, owner, clock())
            for action in actions:
                if isinstance(action, SetDesired):
                    target.set_desired(action.device, action.desired)
            if observer is not None:
                observer(state, decisions, arrived)
            if state.phase in RESTING:
                return state
    finally:
        store.release_lease(name, owner)


def _first_state(spec: RolloutSpec, views: dict[str, DeviceView], now_s: float) -> RolloutState:
    release = open_release(Layout.open(spec.registry), spec.release)
    profiles = {profile for profile, _ in release.artifacts}
    # A device that has left no report has no profile yet, so nothing can be chosen for it.
    known = {name: view.profile for name, view in views.items() if view.profile is not None}
    offline = {name for name, view in views.items() if not view.online}
    waves = plan_waves(spec, list(known.items()), offline)
    chosen = sorted(device for wave in waves for device in wave)
    for device in chosen:
        if known[device] not in profiles:
            raise RolloutError(
                f"{spec.release} holds no artifact for {device}, a {known[device]}",
                remedy="convert it for that profile, or select devices by profile",
            )
    for (profile, model_format), artifact in sorted(release.artifacts.items()):
        failed = artifact.annotation(VERDICT) == "fail" and profile in {known[device] for device in chosen}
        if failed and not spec.accept_failed_artifacts:
            raise RolloutError(
                f"{spec.release} for {profile} ({model_format}) failed its gate, and devices refuse it",
                remedy="'edgewright inspect' shows why; accept_failed_artifacts: true in the specification and in "
                "the devices' configuration rolls it out all the same",
            )
    return RolloutState(
        name=spec.name,
        release=ReleaseReference(name=release.name, version=release.version, digest=release.digest),
        waves=waves,
        devices={device: DeviceRecord(profile=known[device]) for device in chosen},
        since_s=now_s,
    )
