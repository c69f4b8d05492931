"""`ResourceRecord`: the ModelRollouts of a cluster as an operator's commands and the hub see them.

It reads them, makes them, and leaves requests at them, with the rights of whoever calls; it never writes a status,
which is the controller's. Whether a request is carried out is known from the status alone.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from edgewright.errors import ClusterError, RolloutError
from edgewright_fleet.rollout.record import KeptDecision, Summary, Wish
from edgewright_fleet.rollout.spec import RolloutSpec
from edgewright_fleet.rollout.state import ENDED, RESTING, AbortRequested, RolloutState
from edgewright_fleet.targets.kubernetes import resource
from edgewright_fleet.targets.kubernetes.api import CONFLICT, NOT_FOUND, Cluster
from edgewright_fleet.targets.kubernetes.lease import API as LEASE_API
from edgewright_fleet.targets.kubernetes.lease import LEASE
from edgewright_fleet.targets.kubernetes.pages import earlier_decisions
from edgewright_fleet.targets.kubernetes.resource import RolloutStatus, status_of
from edgewright_fleet.targets.kubernetes.store import newest_first

Json = dict[str, Any]
NOWHERE = Path("registry")
"""Stands in for a registry, which the controller has and nobody else."""


class ResourceRecord:
    """The ModelRollouts in our namespace of `cluster`."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def names(self) -> list[str]:
        """The rollouts that have begun, newest first."""
        return [d["metadata"]["name"] for d in self._documents() if status_of(d).state]

    def summaries(self, now_s: float) -> list[Summary]:
        """All rollouts, newest first, also those that wait or were refused."""
        alive = self._controller_lives(now_s)
        return [self._summary(document, alive) for document in self._documents()]

    def load(self, name: str) -> tuple[RolloutSpec, RolloutState]:
        """A rollout by name. Raises `RolloutError` where there is none, or it has not begun."""
        found = self.begun(name)
        if found is None:
            raise RolloutError(f"rollout '{name}' has not begun yet", where=str(self._cluster))
        return found

    def begun(self, name: str) -> tuple[RolloutSpec, RolloutState] | None:
        """A rollout by name, None while it waits. Raises `RolloutError` where it was refused."""
        document = self._document(name)
        status = status_of(document)
        if status.spec is not None and status.state is not None:
            return status.spec, status.state
        if (problem := _refusal(status)) is not None:
            raise RolloutError(
                f"rollout '{name}' was refused: {problem}",
                where=str(self._cluster),
                remedy="change the object, or delete it",
            )
        return None

    def decisions(self, name: str) -> list[KeptDecision]:
        """The whole audit log of a rollout, oldest first, also what its status has no more room for."""
        document = self._document(name)
        status = status_of(document)
        kept = [*earlier_decisions(self._cluster, document, status), *status.decisions]
        return [KeptDecision(d.at_s, d.sentence, d.evidence, d.by) for d in kept]

    def is_held(self, name: str, now_s: float) -> bool:
        """Whether a controller acts on a rollout, as far as its Lease and this machine's clock say."""
        phase = status_of(self._document(name)).phase
        return phase is not None and phase not in RESTING and self._controller_lives(now_s)

    def request(self, name: str, wish: Wish, now_s: float, *, by: str, why: str | None = None) -> None:
        """Ask the controller for something."""
        self.ask(name, wish, by=by, why=why)

    def ask(self, name: str, wish: Wish | Literal["resume"], *, by: str, why: str | None = None) -> str:
        """Ask the controller for something; gives the word by which `taken` knows it.

        Raises `RolloutError` where it cannot come to pass, or would take an abort away that nobody has seen yet.
        """
        word = f"{wish}-{uuid.uuid4().hex[:8]}"
        said = {resource.REQUEST: word, resource.ASKED: resource.asking(word, by, why)}
        while True:
            document = self._document(name)
            self._may_be_asked(name, document)
            asked = resource.asked_of(document)
            if asked is not None and isinstance(asked[1], AbortRequested) and wish != "abort":
                raise RolloutError(f"rollout '{name}' is about to be aborted {asked[1].words}")
            metadata: Json = {"annotations": said}
            if wish != "abort":  # which must not wait for others to be done with writing
                metadata["resourceVersion"] = document["metadata"]["resourceVersion"]
            try:
                self._cluster.patch(self._path(name), {"metadata": metadata})
            except ClusterError as error:
                if error.status != CONFLICT:
                    raise
            else:
                return word

    def taken(self, name: str, word: str) -> bool:
        """Whether a controller has carried out what was asked. Raises `RolloutError` where it never will."""
        document = self._document(name)
        if status_of(document).handled == word:
            return True
        if resource.annotations_of(document).get(resource.REQUEST) != word:
            raise RolloutError(f"rollout '{name}' was asked for something else before a controller saw this")
        return False

    def begin(self, spec: RolloutSpec, *, by: str, why: str | None = None) -> None:
        """Make the object of a rollout, or find that it is there.

        Raises `RolloutError` where there is one of that name with another specification.
        """
        document = spec.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
        given = {key: value for key, value in document.items() if key not in resource.NOT_IN_SPEC}
        note = {resource.ASKED: resource.asking(resource.START, by, why)}
        body = {
            "apiVersion": resource.API_VERSION,
            "kind": resource.KIND,
            "metadata": {"name": spec.name, "annotations": note},
            "spec": given,
        }
        try:
            self._cluster.create(self._path(), body)
        except ClusterError as error:
            if error.status != CONFLICT:
                raise
            had = resource.spec_of(self._document(spec.name), NOWHERE)
            if had != spec.model_copy(update={"registry": NOWHERE}):
                raise RolloutError(
                    f"there is a rollout '{spec.name}' with another specification",
                    remedy="choose another name",
                ) from None

    def begin_reversal(self, name: str, *, by: str, why: str | None = None) -> str:
        """Make the object of the rollout that takes `name` back; its name. Raises `RolloutError`.

        What `edgewright_fleet.rollout.controller.revert_rollout` refuses is refused here before it is made.
        """
        back = f"{name}-revert"
        documents = {d["metadata"]["name"]: d for d in self._documents()}
        if back in documents:
            return back
        spec, state = self.load(name)
        if state.phase not in ENDED:
            raise RolloutError(f"rollout '{name}' has not ended ({state.phase})", remedy="abort it")
        self._is_newest(name, spec.fleet, documents)
        # As it was begun, whatever became of the object since.
        self.begin(spec.model_copy(update={"name": back, "reverts": name}), by=by, why=why)
        return back

    def close(self) -> None:
        """Close the connections."""
        self._cluster.close()

    def _may_be_asked(self, name: str, document: Json) -> None:
        status = status_of(document)
        if status.state is None or status.spec is None:
            raise RolloutError(
                f"rollout '{name}' has not begun",
                where=str(self._cluster),
                remedy=f"'kubectl delete modelrollout {name}' takes it away",
            )
        if status.state.phase in ENDED:
            raise RolloutError(f"rollout '{name}' has ended already ({status.state.phase})")
        if status.state.phase == "paused":  # else it is what the controller is at
            self._is_newest(name, status.spec.fleet, {d["metadata"]["name"]: d for d in self._documents()})

    def _is_newest(self, name: str, fleet: str, documents: dict[str, Json]) -> None:
        begun = ((known, status_of(document)) for known, document in documents.items())
        newest = next((known for known, s in begun if s.state and s.spec and s.spec.fleet == fleet), name)
        if newest != name:
            raise RolloutError(f"rollout '{newest}' of fleet '{fleet}' has followed '{name}'")

    def _summary(self, document: Json, alive: bool) -> Summary:
        status = status_of(document)
        refused = None if status.state else _refusal(status)
        phase = status.phase or ("refused" if refused else "waiting")
        spec = document.get("spec") or {}
        return Summary(
            name=document["metadata"]["name"],
            fleet=str(spec.get("fleet", "")),
            release=str(status.state.release if status.state else spec.get("release", "")),
            phase=phase,
            verdict=status.verdict or refused,
            started_s=_unix(document["metadata"]["creationTimestamp"]),
            is_held=alive and status.phase is not None and status.phase not in RESTING,
        )

    def _controller_lives(self, now_s: float) -> bool:
        try:
            spec = self._cluster.get(self._cluster.named("leases", LEASE, api=LEASE_API))["spec"]
        except ClusterError as error:
            if error.status != NOT_FOUND:
                raise
            return False
        renewed = spec.get("renewTime")
        if not spec.get("holderIdentity") or not renewed:
            return False
        return now_s - _unix(renewed) < 2 * float(spec.get("leaseDurationSeconds", 0))

    def _documents(self) -> list[Json]:
        return newest_first(self._cluster.get(self._path())["items"])

    def _document(self, name: str) -> Json:
        try:
            return self._cluster.get(self._path(name))
        except ClusterError as error:
            if error.status != NOT_FOUND:
                raise
            known = ", ".join(d["metadata"]["name"] for d in self._documents()) or "none"
            raise RolloutError(f"no rollout '{name}'; there are: {known}", where=str(self._cluster)) from None

    def _path(self, name: str = "") -> str:
        return self._cluster.named(resource.PLURAL, name, api=resource.API_VERSION)


def _refusal(status: RolloutStatus) -> str | None:
    return next((c.message for c in status.conditions if c.type == "Accepted" and c.status == "False"), None)


def _unix(rfc3339: str) -> float:
    return datetime.fromisoformat(rfc3339.replace("Z", "+00:00")).timestamp()
