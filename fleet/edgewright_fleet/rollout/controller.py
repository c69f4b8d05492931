"""The loop that joins the engine, the target and the store.

The state is stored before its actions are sent, and a controller that comes after a crash sends them again:
telling a device twice what to run is harmless, forgetting to is not. Nothing is sent by one whose lease is over.
"""

from __future__ import annotations

import gc
import getpass
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from itertools import chain

from edgewright.artifact.layout import Layout
from edgewright.artifact.release import VERDICT, Release, open_release
from edgewright.errors import RolloutError
from edgewright.trust import is_signed
from edgewright.twin import ReleaseReference
from edgewright_fleet.devices import DeviceView, snapshot
from edgewright_fleet.rollout.engine import advance, hear, resend, reversal
from edgewright_fleet.rollout.ports import Store
from edgewright_fleet.rollout.records import DeviceRecord, Devices
from edgewright_fleet.rollout.spec import RolloutSpec
from edgewright_fleet.rollout.state import (
    ENDED,
    RESTING,
    AbortRequested,
    Action,
    ContinueRequested,
    Decision,
    DeviceEvent,
    PauseRequested,
    RolloutState,
    SetDesired,
    Tick,
)
from edgewright_fleet.rollout.waves import choose, plan_waves
from edgewright_fleet.targets.target import AT_ONCE, Target

TICK_S = 0.5
"""Seconds between turns of the loop: far below any time-out, and all messages that came meanwhile share one look
at the clock, one look at the requests and one transaction."""
SAVE_S = 2.0
"""Seconds between two saves of what devices merely said: a controller that comes after a crash is told their
latest reports again, and measures anew what it lacks. Before anything is sent, all is saved."""
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
        store.create(spec, _begun(spec, target, store, clock), by=operator())
    elif store.load(spec.name)[0] != spec:
        raise RolloutError(
            f"rollout '{spec.name}' was begun with another specification", remedy="choose another name"
        )
    return run_rollout(spec.name, target, store, observer, clock=clock)


def _begun(spec: RolloutSpec, target: Target, store: Store, clock: Callable[[], float]) -> RolloutState:
    """The state of a new rollout, with all that is known of its devices: it is heard and stored once."""
    if spec.reverts:
        return _reversal(spec, store, clock())
    state = hear(first_state(spec, snapshot(target), clock()), target.known())
    target.forget()
    return state


def revert_rollout(
    name: str,
    target: Target,
    store: Store,
    observer: Observer | None = None,
    *,
    why: str | None = None,
    clock: Callable[[], float] = time.time,
) -> RolloutState:
    """Take the devices of a rollout that has ended back to exactly what each ran before, as a new rollout.

    That is `NAME-revert`, and goes on where it was cut short. Raises `RolloutError` where there is nothing to take
    back, the rollout has not ended, or another one has followed it.
    """
    back = f"{name}-revert"
    if back not in store.names():
        spec = store.load(name)[0].model_copy(update={"name": back, "reverts": name})
        store.create(spec, _reversal(spec, store, clock()), by=operator(why))
    return run_rollout(back, target, store, observer, clock=clock)


def _reversal(spec: RolloutSpec, store: Store, now_s: float) -> RolloutState:
    """The state of a rollout that takes back the one that `spec` names, which must be the fleet's newest."""
    name = spec.reverts or ""
    reverted, state = store.load(name)
    if (reverted.fleet, reverted.release) != (spec.fleet, spec.release):
        raise RolloutError(
            f"rollout '{name}' is of {reverted.release} in fleet '{reverted.fleet}', not of {spec.release} in "
            f"'{spec.fleet}'"
        )
    if (newest := store.newest_of(spec.fleet)) != name:
        raise RolloutError(
            f"rollout '{newest}' of fleet '{spec.fleet}' has followed '{name}'",
            remedy=f"revert '{newest}' first",
        )
    return reversal(state, spec.name, now_s)


def run_rollout(
    name: str,
    target: Target,
    store: Store,
    observer: Observer | None = None,
    *,
    goes_on: bool = True,
    clock: Callable[[], float] = time.time,
) -> RolloutState:
    """Carry a stored rollout to its end, or until it pauses, and return its last state.

    `goes_on` says that a person who runs it wants a paused rollout to go on, whatever pause was asked for before;
    without it a wish must be among the requests.

    Raises `RolloutError` where it has ended already, a newer rollout of the fleet has followed it, or another
    controller acts on it.
    """
    # Many small objects are kept for long and few cycles made: to look at all of them as often as Python does by
    # itself is a tenth of the processor time.
    gc.set_threshold(50_000, 50, 1000)
    owner = uuid.uuid4().hex
    store.take_lease(name, owner, clock())
    renewed = saved = time.monotonic()
    changed, resumed = False, list[ContinueRequested]()
    try:
        # Not before: until the lease was ours another controller may have acted.
        spec, state = store.load(name)
        if state.phase in ENDED:
            raise RolloutError(f"rollout '{name}' has ended ({state.phase})", remedy="choose another name")
        if (newest := store.newest_of(spec.fleet)) not in (None, name):
            raise RolloutError(f"rollout '{newest}' of fleet '{spec.fleet}' has followed '{name}'")
        for told in resend(state):
            target.set_desired(told.device, told.desired)
        asked = store.requests(name)
        past = [number for number, request in asked if isinstance(request, PauseRequested)] if goes_on else []
        if past:
            store.save(state, [], owner, clock(), taken=past)  # who resumes wants it to go on
        known: Iterable[DeviceEvent] | None = target.known()
        if (
            goes_on
            and state.phase == "paused"
            and not any(isinstance(request, AbortRequested) for _, request in asked)
        ):
            resumed = [ContinueRequested(by=operator())]
        arrived: list[DeviceEvent] = []
        while True:
            # Not woken by the first message: a turn for each of them would cost many times the message. Where more
            # came than a turn takes, the next one follows at once.
            time.sleep(TICK_S if len(arrived) < AT_ONCE else 0.0)
            arrived = list(target.events(0.0))
            requests = store.requests(name)
            if time.monotonic() - renewed > store.lease_s / 3:
                store.renew_lease(name, owner, clock())
                renewed = time.monotonic()
            before, actions = state, list[Action]()
            if known is not None:
                state, known = hear(state, known), None
                target.forget()
            for request in chain(resumed, (request for _, request in requests)):
                state, more = advance(state, spec, request, clock())
                actions += more
            state, more = advance(hear(state, arrived), spec, Tick(), clock())
            actions += more
            resumed = []
            decisions = [action for action in actions if isinstance(action, Decision)]
            changed = changed or state is not before
            if actions or requests or (changed and time.monotonic() - saved > SAVE_S):
                store.save(state, decisions, owner, clock(), taken=[number for number, _ in requests])
                state = state.model_copy(update={"devices": state.devices.saved()})
                saved, changed = time.monotonic(), False
            if (
                time.monotonic() - renewed > store.lease_s
            ):  # it was stopped meanwhile, and another may act by now
                store.renew_lease(name, owner, clock())
                renewed = time.monotonic()
            for action in actions:
                if isinstance(action, SetDesired):
                    target.set_desired(action.device, action.desired)
            if observer is not None:
                observer(state, decisions, arrived)
            if state.phase in RESTING:
                return state
    finally:
        store.release_lease(name, owner)


def operator(why: str | None = None) -> str:
    """Who asks, for the audit log: user@host, and their reason."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name
        user = "unknown"
    return f"{user}@{socket.gethostname()}" + (f" ({why})" if why else "")


def _must_be_signed(release: Release) -> None:
    """Raise `TrustError` where devices that pin the registry's root would refuse the release, one by one."""
    if not is_signed(release.layout.root):
        return
    from edgewright.trust.verify import verify_release  # a registry without signatures needs no tuf

    verify_release(release.layout.root, f"{release.name}:{release.version}", release.digest)


def first_state(spec: RolloutSpec, views: Mapping[str, DeviceView], now_s: float) -> RolloutState:
    """The state of a rollout that begins: its devices, its waves and its release.

    Raises `RolloutError` where the release is not for one of the devices or failed its gate, `TrustError` where
    others of its registry are signed and it is not, `ArtifactError`.
    """
    release = open_release(Layout.open(spec.registry), spec.release)
    _must_be_signed(release)
    profiles = {profile for profile, _ in release.artifacts}
    chosen = choose(spec, views)
    offline = {name for name, view in views.items() if not view.online}
    waves = plan_waves(spec, list(chosen.items()), offline)
    for device, profile in chosen.items():
        if profile not in profiles:
            raise RolloutError(
                f"{spec.release} holds no artifact for {device}, a {profile}",
                remedy="convert it for that profile, or select devices by profile",
            )
    for (profile, model_format), artifact in sorted(release.artifacts.items()):
        failed = artifact.annotation(VERDICT) == "fail" and profile in set(chosen.values())
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
        devices=Devices.of({name: DeviceRecord(profile=profile) for name, profile in chosen.items()}),
        since_s=now_s,
    )
