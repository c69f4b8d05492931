"""The nodes of Kubernetes clusters as a target: the MQTT twin, with the clusters' word on who can be asked.

An agent in a pod is the agent of a bare device: what it should run and what it runs is its twin, and its
telemetry comes the same way. Kubernetes adds where devices are and whether they may be disturbed: here a
device is online only while its twin says so *and* a cluster that answers shows its node as available. So a
cordoned node, a lost node and a cluster that cannot be reached all look like devices that are offline, which
the engine censors. An agent that Kubernetes restarts again and again after it was told something is reported
as failed in its name.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from edgewright.errors import ClusterError
from edgewright.twin import DesiredState, ReportedState
from edgewright_fleet.rollout.state import DeviceEvent, DevicePresence, DeviceReported
from edgewright_fleet.targets.kubernetes.api import Cluster
from edgewright_fleet.targets.kubernetes.nodes import AGENT_SELECTOR, NodeView, view_nodes
from edgewright_fleet.targets.mqtt import MqttTarget

log = logging.getLogger("edgewright.fleet")
POLL_S = 2.0
"""Seconds between two looks at a cluster. Lists from the API server's own cache cost it next to nothing, and no
watch can go stale unnoticed. A kubelet reports every 10 s and a node is called lost after 40."""


@dataclass(frozen=True)
class ClusterView:
    """What one look at a cluster showed; `problem` is None where it answered."""

    cluster: str
    server: str
    nodes: tuple[NodeView, ...] = ()
    problem: str | None = None


def look_at(cluster: Cluster) -> ClusterView:
    """The nodes of a cluster with their agents, or why they cannot be known."""
    try:
        # resourceVersion 0: what the API server has in memory, without a question to etcd.
        nodes = cluster.get("/api/v1/nodes", resourceVersion="0")["items"]
        pods = cluster.get(cluster.named("pods"), resourceVersion="0", labelSelector=AGENT_SELECTOR)["items"]
    except ClusterError as error:
        return ClusterView(cluster.name, cluster.server, problem=error.problem)
    return ClusterView(cluster.name, cluster.server, tuple(view_nodes(cluster.name, nodes, pods)))


class KubernetesTarget:
    """The devices of a fleet that run as nodes of `clusters`, behind one broker."""

    def __init__(self, mqtt: MqttTarget, clusters: Sequence[Cluster], *, poll_s: float = POLL_S) -> None:
        self._mqtt, self._poll_s = mqtt, poll_s
        self._looks = {cluster.name: look_at(cluster) for cluster in clusters}
        self._available = self._devices_available()
        self._presence: dict[str, DevicePresence] = {}
        self._reports: dict[str, ReportedState] = {}
        self._unanswered: dict[str, DesiredState] = {}
        self._stop = threading.Event()
        self._watchers = [
            threading.Thread(target=self._watch, args=(cluster,), daemon=True, name=f"cluster {cluster.name}")
            for cluster in clusters
        ]
        for watcher in self._watchers:
            watcher.start()

    def set_desired(self, device: str, desired: DesiredState | None) -> None:
        """Publish a device's retained desired state, or take it away."""
        self._mqtt.set_desired(device, desired)
        if desired is not None:
            self._unanswered[device] = desired

    def events(self, wait_s: float) -> Iterator[DeviceEvent]:
        """What devices said and what changed in the clusters; waits up to `wait_s` for a device's word."""
        for event in self._mqtt.events(wait_s):
            yield self._seen(event, self._available)
        before, self._available = self._available, self._devices_available()
        for device in before ^ self._available:
            if device in self._presence:
                yield self._seen(self._presence[device], self._available)
        yield from self._failing()

    def known(self) -> list[DeviceEvent]:
        """The latest report and presence of every device."""
        available = self._devices_available()  # the changes since then are still to be told as events
        return [self._seen(event, available) for event in self._mqtt.known()]

    def forget(self) -> None:
        """Forget nothing: other rollouts follow."""

    def close(self) -> None:
        """End the watching and disconnect."""
        self._stop.set()
        for watcher in self._watchers:
            watcher.join(self._poll_s)
        self._mqtt.close()

    def _failing(self) -> Iterator[DeviceReported]:
        """What devices would say whose agents cannot stay up, once for each wish."""
        for look in self._looks.copy().values():
            for node in look.nodes:
                if node.state != "agent failing" or node.device is None or node.device not in self._reports:
                    continue
                wish = self._unanswered.pop(node.device, None)
                if wish is not None:
                    last = self._reports[node.device]
                    said = {
                        "phase": "failed",
                        "target": wish.release,
                        "rollout": wish.rollout,
                        "reason": node.reason,
                    }
                    report = last.model_copy(update={**said, "sequence": last.sequence + 1})
                    yield DeviceReported(report)

    def _seen(self, event: DeviceEvent, available: frozenset[str]) -> DeviceEvent:
        if isinstance(event, DeviceReported):
            self._reports[event.report.device] = event.report
        elif isinstance(event, DevicePresence):
            self._presence[event.device] = event
            return replace(event, online=event.online and event.device in available)
        return event

    def _devices_available(self) -> frozenset[str]:
        looks = self._looks.copy().values()
        return frozenset(n.device for look in looks for n in look.nodes if n.available and n.device)

    def _watch(self, cluster: Cluster) -> None:
        while not self._stop.wait(self._poll_s):
            before = self._looks[cluster.name]
            try:
                look = look_at(cluster)
            except Exception as error:  # noqa: BLE001 - an answer of the wrong shape must not end the watching
                look = ClusterView(cluster.name, cluster.server, problem=f"cannot be understood ({error!r})")
            if look.problem != before.problem:
                said = f"is lost: {look.problem}" if look.problem else "answers again"
                log.warning("cluster %s %s", cluster.name, said)
            self._looks[cluster.name] = look
