"""`NodeView`: whether a node's agent can take an update now, from the node and its agent's pod.

Pure. A node is *available* where it is Ready, not cordoned, has no taint that its agent does not tolerate,
and its agent runs. It need not serve yet, since a new node has nothing to serve until it is told. Any other
node is censored by the rollout like a device that is offline: neither healthy nor failed, not asked, not
waited for. The exception is an agent that Kubernetes restarts again and again: it can say nothing itself, and
that it fails is known.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Json = dict[str, Any]
PROFILE_LABEL = "edgewright.dev/profile"
CLUSTER_LABEL = "edgewright.dev/cluster"
AGENT_SELECTOR = "app.kubernetes.io/name=edgewright-agent"
OWN_TAINTS = "node.kubernetes.io/"
"""A DaemonSet tolerates these by itself, so that a toleration of them means nothing; the node's conditions do."""
NodeState = Literal[
    "available", "not ready", "cordoned", "tainted", "no agent", "agent starting", "agent failing"
]


@dataclass(frozen=True)
class NodeView:
    """One node, as the fleet sees it."""

    cluster: str
    node: str
    device: str | None
    """The device's name in the fleet: the cluster's name in the pod's label, a dot, the node's name."""
    profile: str | None
    state: NodeState
    reason: str | None = None
    serving: bool = False
    """Whether its pod is ready: the agent has proved a release and serves it."""

    @property
    def available(self) -> bool:
        return self.state == "available"

    def as_document(self) -> Json:
        """The view for a script."""
        return asdict(self)


def view_nodes(cluster: str, nodes: Iterable[Json], pods: Iterable[Json]) -> list[NodeView]:
    """The nodes of a cluster that have a hardware profile or an agent, by name."""
    agents: dict[str, Json] = {}
    for pod in pods:
        name = pod.get("spec", {}).get("nodeName")
        # While a pod is replaced its node has two: the one that stays counts.
        if name and (name not in agents or _leaves(agents[name])):
            agents[name] = pod
    views = []
    for node in nodes:
        metadata = node["metadata"]
        profile, agent = metadata.get("labels", {}).get(PROFILE_LABEL), agents.get(metadata["name"])
        if profile is None and agent is None:
            continue
        prefix = agent["metadata"].get("labels", {}).get(CLUSTER_LABEL) if agent else None
        device = f"{prefix}.{metadata['name']}" if prefix else None
        state, reason = _state(node, agent)
        serving = agent is not None and _condition(agent, "Ready").get("status") == "True"
        views.append(NodeView(cluster, metadata["name"], device, profile, state, reason, serving))
    return sorted(views, key=lambda view: view.node)


def _state(node: Json, pod: Json | None) -> tuple[NodeState, str | None]:
    ready = _condition(node, "Ready")
    if ready.get("status") != "True":
        return "not ready", ready.get("reason") or "its kubelet has not said that it is"
    spec = node.get("spec", {})
    if spec.get("unschedulable"):
        return "cordoned", None
    tolerations = pod["spec"].get("tolerations", []) if pod else []
    for taint in spec.get("taints", ()):
        stops = taint["effect"] in ("NoSchedule", "NoExecute")
        if stops and (taint["key"].startswith(OWN_TAINTS) or not _tolerated(taint, tolerations)):
            return "tainted", f"{taint['key']}={taint.get('value', '')}:{taint['effect']}"
    if pod is None or _leaves(pod):
        return "no agent", "its pod is being deleted" if pod else None
    status = pod.get("status", {})
    waits = next(
        (w for c in status.get("containerStatuses", ()) if (w := c.get("state", {}).get("waiting"))), None
    )
    if waits is not None and waits.get("reason") == "CrashLoopBackOff":
        return (
            "agent failing",
            f"its pod is in CrashLoopBackOff ({waits.get('message', 'without a message')})",
        )
    if waits is not None or status.get("phase") != "Running":
        return "agent starting", waits.get("reason") if waits else status.get("reason") or status.get("phase")
    return "available", None


def _leaves(pod: Json) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def _condition(document: Json, kind: str) -> Json:
    found = [c for c in document.get("status", {}).get("conditions", ()) if c.get("type") == kind]
    return found[0] if found else {}


def _tolerated(taint: Json, tolerations: Iterable[Json]) -> bool:
    """Kubernetes' rule, `Toleration.ToleratesTaint` in k8s.io/api/core/v1/toleration.go."""
    for toleration in tolerations:
        if toleration.get("effect") not in (None, "", taint["effect"]):
            continue
        if toleration.get("key") not in (None, "", taint["key"]):
            continue
        if toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", ""):
            return True
    return False
