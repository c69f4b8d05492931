"""`ModelRollout`, the custom resource: a rollout's specification and status as Kubernetes holds them.

The specification is `RolloutSpec` but for its name, which is the object's, and its registry, which is where
the controller has it. The status keeps the engine's whole state, so that a controller goes on from the object
alone, and beside it what people and tools read: a phase, conditions by Kubernetes' convention, and every
decision.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from edgewright.contract import CONTRACT, from_mapping
from edgewright_fleet.rollout.spec import RolloutSpec
from edgewright_fleet.rollout.state import (
    ENDED,
    RESTING,
    AbortRequested,
    ContinueRequested,
    OperatorRequest,
    PauseRequested,
    PromoteRequested,
    RolloutState,
)
from edgewright_fleet.targets.kubernetes.schema import structural

Json = dict[str, Any]
GROUP, VERSION, PLURAL, KIND = "edgewright.dev", "v1alpha1", "modelrollouts", "ModelRollout"
API_VERSION = f"{GROUP}/{VERSION}"
REQUEST = f"{GROUP}/request"
"""Annotation by which an operator asks for one of `REQUESTS`; with anything behind a dash, to ask again."""
REQUESTS: dict[str, type[OperatorRequest]] = {
    "abort": AbortRequested,
    "pause": PauseRequested,
    "promote": PromoteRequested,
    "resume": ContinueRequested,
}
ASKED = f"{GROUP}/asked"
"""Annotation that says, as JSON, of which request it speaks, who asked, and why: a request is a word alone, so
that `kubectl` can make one. It counts only with the request that it names."""
START = "start"
"""What `ASKED` speaks of in an object whose request is to begin."""
NOT_IN_SPEC = ("name", "registry")


class Condition(BaseModel):
    """metav1.Condition of Kubernetes' API conventions."""

    model_config = CONTRACT
    type: Literal["Accepted", "Progressing", "Paused", "Succeeded"]
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = Field(min_length=1)
    last_transition_time: str = Field(alias="lastTransitionTime")
    observed_generation: int = Field(alias="observedGeneration")


class DecisionRecord(BaseModel):
    """One line of the audit log."""

    model_config = CONTRACT
    at: str = Field(description="RFC 3339, UTC")
    at_s: float = Field(alias="atSeconds", description="Unix seconds")
    sentence: str
    evidence: dict[str, Any] = {}
    by: str | None = Field(default=None, description="who asked for it, where a person did")


class RolloutStatus(BaseModel):
    """The status of a ModelRollout; the controller alone writes it."""

    model_config = CONTRACT
    phase: str | None = None
    progress: str | None = Field(default=None, description="which wave of how many")
    exposed: str | None = Field(default=None, description="devices that were told to run the release, of all")
    verdict: str | None = Field(default=None, description="why it rests, or reverts")
    observed_generation: int | None = Field(default=None, alias="observedGeneration")
    controller: str | None = Field(
        default=None, description="who acts on it; a controller that finds another name here stops"
    )
    handled: str | None = Field(default=None, description="the last request that was carried out")
    conditions: tuple[Condition, ...] = ()
    earlier: int = Field(
        default=0, description="decisions before those below; ConfigMaps NAME.decisions.* hold them"
    )
    pages: int = Field(default=0, description="how many ConfigMaps that are")
    decisions: tuple[DecisionRecord, ...] = Field(
        default=(), description="the newest of the audit log, oldest first"
    )
    spec: RolloutSpec | None = Field(default=None, description="what it was begun with, and goes on with")
    state: RolloutState | None = Field(default=None, description="everything the engine knows")


def status_of(document: Json) -> RolloutStatus:
    """The status of a ModelRollout. Raises `ConfigError` where it is not what a controller writes."""
    where = f"{PLURAL}/{document['metadata']['name']}: status"
    return from_mapping(RolloutStatus, document.get("status") or {}, where=where)


def spec_of(document: Json, registry: Path) -> RolloutSpec:
    """The specification of a ModelRollout. Raises `ConfigError` with one line on any violation."""
    metadata = document["metadata"]
    where = f"{PLURAL}/{metadata['name']}"
    given = document.get("spec") or {}
    for name in NOT_IN_SPEC:
        if name in given:
            given = {**given, f"{name} (the controller has it)": None}
    return from_mapping(RolloutSpec, {**given, "name": metadata["name"], "registry": registry}, where=where)


def asked_of(document: Json) -> tuple[str, OperatorRequest] | None:
    """What an operator asks of a rollout and no controller has taken up yet, with the word that they used."""
    word = annotations_of(document).get(REQUEST)
    kind = REQUESTS.get((word or "").partition("-")[0])
    if word is None or kind is None or word == (document.get("status") or {}).get("handled"):
        return None
    by, why = asker(document, word)
    return word, kind(by=by or "an annotation", why=why)


def asker(document: Json, word: str) -> tuple[str | None, str | None]:
    """Who made the request `word`, and why, where they said so."""
    try:
        said = json.loads(annotations_of(document).get(ASKED, ""))
    except ValueError:
        return None, None
    if not isinstance(said, dict) or said.get("request") != word:
        return None, None
    by, why = said.get("by"), said.get("why")
    return (by if isinstance(by, str) else None), (why if isinstance(why, str) else None)


def asking(word: str, by: str, why: str | None) -> str:
    """What `ASKED` is to say."""
    return json.dumps({"request": word, "by": by, "why": why}, ensure_ascii=False)


def annotations_of(document: Json) -> dict[str, str]:
    """The annotations of an object."""
    return document["metadata"].get("annotations") or {}


def conditions(
    state: RolloutState | None,
    problem: str | None,
    generation: int,
    before: tuple[Condition, ...],
    now_s: float,
) -> tuple[Condition, ...]:
    """The conditions that say where a rollout is; a transition is dated when its status changes."""
    phase = state.phase if state else None
    reason = "".join(word.capitalize() for word in (phase or "waiting").split("-"))
    verdict = state.verdict if state else None
    at = f"{phase} in wave {state.wave + 1} of {len(state.waves)}" if state else "has not begun"
    said: list[tuple[Any, bool | None, str, str]] = [
        (
            "Accepted",
            problem is None,
            "Refused" if problem else "Valid",
            problem or "the specification holds",
        ),
        ("Progressing", phase is not None and phase not in RESTING, reason, at),
        ("Paused", phase == "paused", reason, (verdict if phase == "paused" else None) or at),
        ("Succeeded", (phase == "succeeded") if phase in ENDED else None, reason, verdict or at),
    ]
    had = {condition.type: condition for condition in before}
    made = []
    for kind, holds, why, message in said:
        status: Any = "Unknown" if holds is None else str(holds)
        same = kind in had and had[kind].status == status
        made.append(
            Condition(
                type=kind,
                status=status,
                reason=why,
                message=message,
                lastTransitionTime=had[kind].last_transition_time if same else rfc3339(now_s),
                observedGeneration=generation,
            )
        )
    return tuple(made)


def rfc3339(at_s: float) -> str:
    """Unix seconds as Kubernetes writes a time."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_s))


def definition() -> Json:
    """The CustomResourceDefinition."""
    spec = structural(RolloutSpec, without=NOT_IN_SPEC)
    status = structural(RolloutStatus)
    listed = status["properties"]["conditions"]
    listed |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    columns = [
        ("Release", "string", ".spec.release", 0),
        ("Phase", "string", ".status.phase", 0),
        ("Wave", "string", ".status.progress", 0),
        ("Exposed", "string", ".status.exposed", 0),
        ("Accepted", "string", '.status.conditions[?(@.type=="Accepted")].status', 1),
        ("Verdict", "string", ".status.verdict", 1),
        ("Age", "date", ".metadata.creationTimestamp", 0),
    ]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND, "listKind": f"{KIND}List", "plural": PLURAL, "singular": KIND.lower(),
                "shortNames": ["mr"], "categories": ["edgewright"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {"name": name, "type": kind, "jsonPath": path, "priority": priority}
                        for name, kind, path, priority in columns
                    ],
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "required": ["spec"],
                            "properties": {
                                "apiVersion": {"type": "string"},
                                "kind": {"type": "string"},
                                "metadata": {"type": "object"},
                                "spec": spec,
                                "status": status,
                            },
                        }
                    },
                }
            ],
        },
    }  # fmt: skip
