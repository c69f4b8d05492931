"""What a Job, or TrainJob, and its pods say of a run, as a `JobStatus`; pure.

How far the training has come is not in these objects: the backend adds it, from the volume or from rank 0's log.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgewright_fleet.retraining.job import JobState, JobStatus
from edgewright_fleet.retraining.kubernetes.pods import CONTAINER, INDEX, QUEUE

Json = dict[str, Any]
STUCK = (
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
)
"""Reasons of a container that waits for something to be put right."""


def status_of(run: Json, pods: Sequence[Json]) -> JobStatus:
    """Where the run stands: `run` is its Job or TrainJob, `pods` those that it has and had, in any order."""
    state, why = _state(run, pods)
    failed = max(int((run.get("status") or {}).get("failed") or 0), len(_failed(pods)))
    return JobStatus(state=state, why=why, restarts=failed - (state == "failed" and failed > 0))


def index_of(pod: Json) -> int:
    """Which node of the run a pod is; 0 where the server knows no indices, which then runs one node alone."""
    return int((pod["metadata"].get("annotations") or {}).get(INDEX, 0))


def _state(run: Json, pods: Sequence[Json]) -> tuple[JobState, str]:
    conditions = {
        one["type"]: one
        for one in (run.get("status") or {}).get("conditions") or ()
        if one["status"] == "True"
    }
    if "Complete" in conditions:
        return "succeeded", ""
    if "Failed" in conditions:
        return "failed", _why_failed(conditions["Failed"], pods)
    if run["metadata"].get("deletionTimestamp"):
        return "running", "is being stopped: its ranks have their notice"
    if run["spec"].get("suspend"):
        queue = (run["metadata"].get("labels") or {}).get(QUEUE)
        return (
            ("queued", f"waits in Kueue's queue '{queue}'")
            if queue
            else ("suspended", "suspended in the cluster")
        )
    alive = [pod for pod in pods if _phase(pod) in ("Pending", "Running")]
    waiting = [pod for pod in alive if _phase(pod) == "Pending"]
    gone = _failed(pods)
    lost = f"replaced {_why_pod(gone[-1])}" if gone else ""
    if alive and not waiting:
        return "running", lost
    return "queued", next(
        (said for said in map(_why_waiting, waiting) if said), lost or "its pods are being made"
    )


def _why_failed(condition: Json, pods: Sequence[Json]) -> str:
    """The Job's own word, and the pod that it comes from: the last that ended by itself, else the last."""
    gone = _failed(pods)
    own = [pod for pod in gone if not _disruption(pod)]
    cause = f": {_why_pod((own or gone)[-1])}" if gone else ""
    said = condition.get("reason") or "Failed"
    return f"{said}{cause}" if gone else f"{said}: {condition.get('message') or 'no pod is left to tell why'}"


def _failed(pods: Sequence[Json]) -> list[Json]:
    """Pods that failed, the last to end last."""
    return sorted((pod for pod in pods if _phase(pod) == "Failed"), key=_ended_at)


def _ended_at(pod: Json) -> str:
    ended = _terminated(pod).get("finishedAt") or pod["metadata"].get("creationTimestamp")
    return str(ended or "")  # RFC 3339 in UTC sorts as text


def _phase(pod: Json) -> str:
    return str((pod.get("status") or {}).get("phase", "Pending"))


def _container(pod: Json) -> Json:
    found = (pod.get("status") or {}).get("containerStatuses") or ()
    return next((dict(one.get("state") or {}) for one in found if one["name"] == CONTAINER), {})


def _terminated(pod: Json) -> Json:
    return dict(_container(pod).get("terminated") or {})


def _disruption(pod: Json) -> Json | None:
    """The condition by which Kubernetes (1.26 and later) says that it ended the pod, not the pod itself."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return next(
        (one for one in conditions if one["type"] == "DisruptionTarget" and one["status"] == "True"), None
    )


def _why_pod(pod: Json) -> str:
    """`pod NAME on NODE: exit code 137 (OOMKilled)`, or Kubernetes' reason for ending it."""
    status, ended, disruption = pod.get("status") or {}, _terminated(pod), _disruption(pod)
    where = f"pod {pod['metadata']['name']} on {pod.get('spec', {}).get('nodeName') or 'no node'}"
    if disruption or status.get("reason"):
        reason = (disruption or {}).get("reason") or status["reason"]
        message = _short((disruption or {}).get("message") or status.get("message") or "")
        return f"{where}: {reason}" + (f" ({message})" if message else "")
    if not ended:
        return f"{where}: its container left no exit code"
    reason = ended.get("reason")
    return f"{where}: exit code {ended['exitCode']}" + (
        f" ({reason})" if reason not in (None, "Error") else ""
    )


def _why_waiting(pod: Json) -> str:
    """What a pod waits for, where Kubernetes says so."""
    name, waiting = pod["metadata"]["name"], _container(pod).get("waiting") or {}
    if waiting.get("reason") in STUCK:
        return f"pod {name}: {waiting['reason']} ({_short(waiting.get('message', ''))})"
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"pod {name}: {_short(condition.get('message') or condition.get('reason'))}"
    return ""


def _short(said: object) -> str:
    return " ".join(str(said).split())[:200]
