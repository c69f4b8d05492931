"""`ResourceStore`: the durable record of rollouts as ModelRollout objects, used like `RolloutStore`.

A state and its decisions are one write of one object's status, and a write names the version that it saw. Who
finds that the object has moved on reads it again: an operator's annotation is no reason to stop, another
controller's name in the status is. While the API server is away, a write is tried again for as long as the
lease lasts, and no longer.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from edgewright.contract import to_json
from edgewright.errors import ClusterError, RolloutError
from edgewright_fleet.rollout.record import begun_decision
from edgewright_fleet.rollout.spec import RolloutSpec
from edgewright_fleet.rollout.state import Decision, OperatorRequest, RolloutState
from edgewright_fleet.rollout.store import LEASE_S
from edgewright_fleet.targets.kubernetes import resource
from edgewright_fleet.targets.kubernetes.api import CONFLICT, Cluster
from edgewright_fleet.targets.kubernetes.lease import LeaderLease
from edgewright_fleet.targets.kubernetes.pages import PAGE_BYTES, turn_page
from edgewright_fleet.targets.kubernetes.resource import DecisionRecord, RolloutStatus, rfc3339, status_of

Json = dict[str, Any]
T = TypeVar("T")
RETRY_S = 0.5
REQUEST_AGE_S = 1.0
"""Seconds for which an operator's request may be unseen."""
SAVE_S = 5.0
"""Seconds between two writes of which only measurements differ. A status of hundreds of nodes is a megabyte,
telemetry comes all the time, and a gate that lost 5 s of it in a crash waits for more."""
MOST_NODES = 1000
"""Of one rollout. etcd takes objects of 1.5 MB; the state of 1,000 nodes with full histograms is 1.1, and
decisions have two tenths of the rest. One that outgrew it half way could be written neither on nor back."""
MARGIN_S = 2.0
"""Seconds before the lease's end from which nothing more is written: two clocks may run at different speeds."""


class ResourceStore:
    """The rollouts of a cluster's namespace; `registry` is where this controller has the releases."""

    def __init__(
        self,
        cluster: Cluster,
        registry: Path,
        identity: str,
        *,
        lease_s: float = LEASE_S,
        page_bytes: int = PAGE_BYTES,
    ) -> None:
        self.lease_s, self._page_bytes = lease_s, page_bytes
        self._cluster, self._registry = cluster, registry
        self._lease = LeaderLease(cluster, identity, lease_s)
        self._seen: dict[str, Json] = {}
        self._asked: dict[str, tuple[float, Json | None]] = {}
        self._saved: dict[str, tuple[object, float]] = {}

    def documents(self) -> list[Json]:
        """Every ModelRollout, newest first."""
        return newest_first(self._cluster.get(self._path())["items"])

    def names(self) -> list[str]:
        """The names of all rollouts that were begun, newest first."""
        return [document["metadata"]["name"] for document in self.documents() if status_of(document).state]

    def newest_of(self, fleet: str) -> str | None:
        """The name of a fleet's newest rollout."""
        begun = ((document, status_of(document).spec) for document in self.documents())
        return next((d["metadata"]["name"] for d, spec in begun if spec and spec.fleet == fleet), None)

    def create(self, spec: RolloutSpec, state: RolloutState, *, by: str | None = None) -> None:
        """Begin a rollout whose object an operator made.

        Raises `ClusterError` where another has begun it, `RolloutError` where an object cannot hold so many nodes.
        """
        if len(state.devices) > MOST_NODES:
            raise RolloutError(
                f"{len(state.devices):,} nodes are more than one ModelRollout holds ({MOST_NODES:,})",
                remedy="make one for each cluster, or select nodes by labels",
            )
        document = self._read(spec.name)
        status = status_of(document).model_copy(update={"spec": spec})
        # Not the controller, whose `by` it is, but whoever made the object, where they said who they are.
        who, why = resource.asker(document, resource.START)
        by = who and who + (f" ({why})" if why else "")
        begun = begun_decision(state, by)
        self._write(document, state, status, _kept([begun], state.since_s), state.since_s)

    def refuse(self, name: str, problem: str, now_s: float) -> None:
        """Say in a rollout's status why it cannot begin."""
        document = self._read(name)
        status = status_of(document)
        accepted = next((c for c in status.conditions if c.type == "Accepted"), None)
        if accepted is None or accepted.message != problem:
            self._write(document, None, status, (), now_s, problem=problem)

    def spec(self, document: Json) -> RolloutSpec:
        """What a rollout was begun with or, before that, what its object asks for. Raises `ConfigError`."""
        return status_of(document).spec or resource.spec_of(document, self._registry)

    def load(self, name: str) -> tuple[RolloutSpec, RolloutState]:
        """A begun rollout by name. Raises `RolloutError` where there is none."""
        status = status_of(self._read(name))
        if status.spec is None or status.state is None:
            raise RolloutError(f"rollout '{name}' has not begun", where=str(self._cluster))
        return status.spec, status.state

    def save(
        self,
        state: RolloutState,
        decisions: Sequence[Decision],
        owner: str,
        now_s: float,
        *,
        taken: Sequence[int] = (),
    ) -> None:
        """Replace the state, append decisions and mark a request as carried out, in one write.

        Raises `RolloutError` where another controller acts: whoever raises it must not act on. What only adds
        measurements to what is kept may wait for `SAVE_S`; nothing is ever told to a device on the strength of it.
        """
        essence = _essence(state)
        had_essence, saved_s = self._saved.get(state.name, (None, 0.0))
        if not decisions and not taken and essence == had_essence and time.monotonic() - saved_s < SAVE_S:
            return
        document = self._seen[state.name]
        made = _kept(decisions, now_s)
        kept = status_of(document)
        had = {"decisions": kept.decisions, "earlier": kept.earlier, "pages": kept.pages}

        def write() -> None:
            current = document
            while True:
                status = status_of(current).model_copy(update=had)
                asked = self._asked[state.name][1] if taken else None
                if asked is not None:
                    word = resource.annotations_of(asked).get(resource.REQUEST)
                    status = status.model_copy(update={"handled": word})
                try:
                    return self._write(current, state, status, made, now_s)
                except ClusterError as error:
                    if error.status != CONFLICT:
                        raise
                # Nobody but the owner writes a status: either this write came through and its answer was lost, or
                # something beside the status has changed.
                current = self._read(state.name)
                if status_of(current).controller != owner:
                    raise RolloutError(f"another controller has taken over rollout '{state.name}'")

        self._patiently(write)
        self._saved[state.name] = (essence, time.monotonic())

    def requests(self, name: str) -> list[tuple[int, OperatorRequest]]:
        """What an operator asked for and nobody has done yet; as last seen while the API server is away."""
        at, document = self._asked.get(name, (float("-inf"), None))
        if time.monotonic() - at > REQUEST_AGE_S:
            try:
                document = self._cluster.get(self._path(name))
            except ClusterError as error:
                if not error.passes:
                    raise
            self._asked[name] = (time.monotonic(), document)
        # What is done is in the status that was written last, which may be newer than what was read.
        if document is None or (seen := self._seen.get(name)) is None:
            return []
        asked = resource.asked_of(document | {"status": seen["status"]})
        return [(0, asked[1])] if asked else []

    def hold_lead(self) -> None:
        """Take or renew the right to act in this cluster. Raises `RolloutError` while another has it."""
        self._patiently(self._lease.hold)

    def take_lease(self, name: str, owner: str, now_s: float) -> None:
        """Take the right to act on a rollout, and write down whose it is."""
        self.hold_lead()
        document = self._read(name)
        status = status_of(document).model_copy(update={"controller": owner})
        self._write(document, status.state, status, (), now_s)

    def renew_lease(self, name: str, owner: str, now_s: float) -> None:
        """Keep the right. Raises `RolloutError` where another controller has it, or had it since."""
        self.hold_lead()
        if self._read(name)["status"].get("controller") != owner:
            raise RolloutError(f"another controller has taken over rollout '{name}'")

    def release_lease(self, name: str, owner: str) -> None:
        """Nothing: the lease is for all rollouts of a cluster; `close` gives it back."""

    def close(self) -> None:
        """Give the right to act back where it is ours; where that fails it ends by itself."""
        with contextlib.suppress(ClusterError):
            if self._lease.left_s > 0:
                self._lease.release()

    def _read(self, name: str) -> Json:
        self._seen[name] = document = self._cluster.get(self._path(name))
        return document

    def _write(
        self,
        document: Json,
        state: RolloutState | None,
        status: RolloutStatus,
        made: tuple[DecisionRecord, ...],
        now_s: float,
        *,
        problem: str | None = None,
    ) -> None:
        status = turn_page(self._cluster, document, status, self._page_bytes)
        generation = document["metadata"]["generation"]
        begun = status.observed_generation if status.state else generation
        if state is not None and begun != generation:
            problem = "the specification was changed after the rollout had begun; choose another name for it"
        changes: Json = {
            "observed_generation": begun,
            "conditions": resource.conditions(state, problem, generation, status.conditions, now_s),
            "decisions": (*status.decisions, *made),
        }
        if state is not None:
            changes |= {
                "phase": state.phase,
                "progress": f"{state.wave + 1} of {len(state.waves)}",
                "exposed": f"{len(state.exposed)} of {len(state.devices)}",
                "verdict": state.verdict,
                "state": state,
            }
        body = document | {"status": json.loads(to_json(status.model_copy(update=changes)))}
        name = document["metadata"]["name"]
        self._seen[name] = self._cluster.replace(f"{self._path(name)}/status", body)

    def _path(self, name: str = "") -> str:
        return self._cluster.named(resource.PLURAL, name, api=resource.API_VERSION)

    def _patiently(self, call: Callable[[], T]) -> T:
        while True:
            try:
                return call()
            except ClusterError as error:
                if not error.passes or self._lease.left_s < MARGIN_S:
                    raise
                time.sleep(RETRY_S)


def _kept(decisions: Sequence[Decision], now_s: float) -> tuple[DecisionRecord, ...]:
    at = rfc3339(now_s)
    return tuple(
        DecisionRecord(at=at, atSeconds=now_s, sentence=d.sentence, evidence=d.evidence, by=d.by)
        for d in decisions
    )


def _essence(state: RolloutState) -> object:
    """All but what devices measured and said of themselves."""
    stands = tuple((name, record.stand, record.asked_s) for name, record in state.devices.items())
    return state.phase, state.paused_in, state.wave, state.since_s, state.verdict, stands


def newest_first(documents: Iterable[Json]) -> list[Json]:
    """Objects by when they were made."""
    return sorted(documents, key=_age, reverse=True)


def _age(document: Json) -> tuple[str, str]:
    metadata = document["metadata"]
    return metadata["creationTimestamp"], metadata["name"]
