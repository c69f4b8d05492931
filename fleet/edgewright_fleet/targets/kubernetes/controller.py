"""The loop of `edgewright fleet controller`: carries out the ModelRollouts of one fleet, one at a time.

Of several controllers the one that holds the Lease acts and the others wait. It begins what an operator has
applied, goes on with what a killed controller left, and between rollouts tells nodes that have joined or come
back the release that they missed. A failure of the API server ends a turn, never the loop.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from edgewright.errors import ClusterError, EdgewrightError
from edgewright_fleet.devices import DeviceView, fold
from edgewright_fleet.rollout.catch_up import due
from edgewright_fleet.rollout.controller import run_rollout, start_rollout
from edgewright_fleet.rollout.spec import RolloutSpec
from edgewright_fleet.rollout.state import ENDED, Decision, DeviceEvent, RolloutState
from edgewright_fleet.targets.kubernetes import resource
from edgewright_fleet.targets.kubernetes.resource import status_of
from edgewright_fleet.targets.kubernetes.store import ResourceStore
from edgewright_fleet.targets.target import Target

Json = dict[str, Any]
log = logging.getLogger("edgewright.fleet")
TURN_S = 1.0
"""Seconds between two looks for work."""


class _StoppedError(Exception):
    """Raised out of a rollout's loop when the process is to end; what is stored is whole at any instant."""


def run_controller(
    fleet: str, target: Target, store: ResourceStore, stopped: Callable[[], bool], *, turn_s: float = TURN_S
) -> None:
    """Work until `stopped` says so."""
    views: dict[str, DeviceView] = {}
    told: set[tuple[str, str]] = set()
    fold(views, target.known())
    problem = ""

    def observer(state: RolloutState, decisions: list[Decision], arrived: list[DeviceEvent]) -> None:
        fold(views, arrived)
        for decision in decisions:
            log.info("%s: %s", state.name, decision.sentence)
        if stopped():
            raise _StoppedError

    while not stopped():
        fold(views, target.events(turn_s))
        try:
            store.hold_lead()
            documents = store.documents()
            begun = _begun(fleet, documents)
            if not _work(fleet, target, store, documents, begun, observer):
                _catch_up(target, views, begun, told)
            said = ""
        except _StoppedError:
            return
        except EdgewrightError as error:  # another controller leads, or the API server is away
            said = str(error)
        if said != problem:
            log.warning("%s", said or "acts")
            problem = said


def _begun(fleet: str, documents: list[Json]) -> list[tuple[RolloutSpec, RolloutState]]:
    """The rollouts of the fleet that have begun, newest first."""
    statuses = [status_of(document) for document in documents]
    return [(s.spec, s.state) for s in statuses if s.spec and s.state and s.spec.fleet == fleet]


def _work(
    fleet: str,
    target: Target,
    store: ResourceStore,
    documents: list[Json],
    begun: list[tuple[RolloutSpec, RolloutState]],
    observer: Callable[[RolloutState, list[Decision], list[DeviceEvent]], None],
) -> bool:
    """Carry the next rollout to its end; False where there is nothing to do."""
    states = {state.name: state for _, state in begun}
    newest = begun[0][1].name if begun else None
    for document in documents:
        name = document["metadata"]["name"]
        state = states.get(name)
        if name == newest and state is not None and state.phase not in ENDED:
            if state.phase == "paused" and resource.asked_of(document) is None:
                break
            run_rollout(name, target, store, observer, goes_on=False)
            return True
    # Oldest first; one that is paused is followed by the next, as a fix must not wait for what it mends.
    names = [document["metadata"]["name"] for document in documents]
    later = documents[: names.index(newest)] if newest else documents
    return any(_begin(fleet, target, store, document, observer) for document in reversed(later))


def _begin(
    fleet: str,
    target: Target,
    store: ResourceStore,
    document: Json,
    observer: Callable[[RolloutState, list[Decision], list[DeviceEvent]], None],
) -> bool:
    name = document["metadata"]["name"]
    if (document.get("spec") or {}).get("fleet") != fleet or document.get("status", {}).get("state"):
        return False
    try:
        start_rollout(store.spec(document), target, store, observer)
    except ClusterError:
        raise
    except EdgewrightError as error:
        if name in store.names():
            raise
        store.refuse(name, str(error), time.time())
        return False
    return True


def _catch_up(
    target: Target,
    views: dict[str, DeviceView],
    begun: list[tuple[RolloutSpec, RolloutState]],
    told: set[tuple[str, str]],
) -> None:
    for wish in due(views, begun, time.time()):
        assert wish.desired is not None
        key = (wish.device, wish.desired.rollout)
        if key not in told:
            log.info("%s: catches up with %s", wish.device, wish.desired.release)
            target.set_desired(wish.device, wish.desired)
            told.add(key)
