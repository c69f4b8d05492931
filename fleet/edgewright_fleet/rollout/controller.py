"""The loop that joins the engine, the target and the store.

The state is stored before its actions are sent, and a controller that comes after a crash sends them again:
telling a device twice what to run is harmless, forgetting to is not.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

from edgewright.artifact.layout import Layout
from edgewright.artifact.release import open_release
from edgewright.errors import RolloutError
from edgewright.twin import ReleaseReference
from edgewright_fleet.devices import DeviceView, snapshot
from edgewright_fleet.rollout.engine import (
    ENDED,
    AbortRequested,
    Action,
    Decision,
    DeviceRecord,
    Event,
    RolloutState,
    SetDesired,
    Tick,
    advance,
    resend,
)
from edgewright_fleet.rollout.spec import RolloutSpec, plan_waves
from edgewright_fleet.rollout.store import LEASE_S, RolloutStore
from edgewright_fleet.targets.mqtt import DeviceEvent, MqttTarget

TICK_S = 0.2
Observer = Callable[[RolloutState, list[Decision], list[DeviceEvent]], None]
"""Told after every change: the state, what was decided, and the device events behind it."""


def start_rollout(
    spec: RolloutSpec, target: MqttTarget, store: RolloutStore, observer: Observer | None = None
) -> RolloutState:
    """Begin a rollout and carry it to its end; a rollout of that name that was cut short is continued.

    Raises `RolloutError` where it has ended already or another controller acts on it, `BrokerError`,
    `ArtifactError` where the registry does not hold the release.
    """
    if spec.name not in store.names():
        store.create(spec, _first_state(spec, snapshot(target)))
    else:
        kept, state = store.load(spec.name)
        if kept != spec:
            raise RolloutError(f"rollout '{spec.name}' was begun with another specification")
        if state.phase in ENDED:
            raise RolloutError(
                f"rollout '{spec.name}' has ended ({state.phase})", remedy="choose another name"
            )
    return run_rollout(spec.name, target, store, observer)


def run_rollout(
    name: str, target: MqttTarget, store: RolloutStore, observer: Observer | None = None
) -> RolloutState:
    """Carry a stored rollout to its end and return its last state."""
    owner = uuid.uuid4().hex
    store.hold_lease(name, owner, time.time())
    try:
        spec, state = store.load(name)
        for told in resend(state):
            target.set_desired(told.device, told.desired)
        renewed = time.monotonic()
        while state.phase not in ENDED:
            arrived = list(target.events(TICK_S))
            events: list[Event] = [*arrived, Tick()]
            if store.abort_requested(name):
                events.insert(0, AbortRequested())
            if time.monotonic() - renewed > LEASE_S / 3:
                store.hold_lease(name, owner, time.time())
                renewed = time.monotonic()
            before, actions = state, list[Action]()
            for event in events:
                state, more = advance(state, spec, event, time.time())
                actions += more
            decisions = [action for action in actions if isinstance(action, Decision)]
            if state is not before:
                store.save(state, decisions, time.time())
            for action in actions:
                if isinstance(action, SetDesired):
                    target.set_desired(action.device, action.desired)
            if observer is not None:
                observer(state, decisions, arrived)
        return state
    finally:
        store.release_lease(name, owner)


def _first_state(spec: RolloutSpec, views: dict[str, DeviceView]) -> RolloutState:
    release = open_release(Layout.open(spec.registry), spec.release)
    profiles = {profile for profile, _ in release.artifacts}
    waves = plan_waves(spec, [(view.device, view.profile or "unknown") for view in views.values()])
    chosen = {device for wave in waves for device in wave}
    for device in sorted(chosen):
        if views[device].profile not in profiles:
            raise RolloutError(
                f"{spec.release} holds no artifact for {device}, a {views[device].profile}",
                remedy="convert it for that profile, or select devices by profile",
            )
    return RolloutState(
        name=spec.name,
        release=ReleaseReference(name=release.name, version=release.version, digest=release.digest),
        waves=waves,
        devices={
            view.device: DeviceRecord(
                profile=view.profile or "unknown",
                online=view.online,
                before=view.running,
                running=view.running,
            )
            for view in views.values()
            if view.device in chosen
        },
        since_s=time.time(),
    )
