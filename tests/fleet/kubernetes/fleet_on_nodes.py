"""A fleet of simulated agents on the nodes of real clusters, the rollouts in it, and the controllers that act."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from edgewright.mqtt import BrokerSettings
from edgewright.twin import DesiredState, ReleaseReference
from edgewright_fleet.targets.kubernetes.controller import run_controller
from edgewright_fleet.targets.kubernetes.resource import RolloutStatus, status_of
from edgewright_fleet.targets.kubernetes.store import ResourceStore
from edgewright_fleet.targets.kubernetes.target import KubernetesTarget
from edgewright_fleet.targets.mqtt import MqttTarget
from fleet.kubernetes.real_cluster import NAMESPACE, NODES, RealCluster, until
from fleet.simulated_device import SimulatedDevice, reference

CONTROLLER = "edgewright-controller"
LEASE_S = 3.0
"""So that a test need not wait 15 s for a dead controller's lease."""
GATES = {"min_inferences": 20, "window_s": 0.5, "timeout_s": 20, "max_p50_ratio": 5, "max_p99_ratio": 50}


class MuteDevice(SimulatedDevice):
    """An agent that dies of what it is told before it can say anything."""

    def _take(self, wish: DesiredState) -> None:
        return


class FleetOnNodes:
    """One fleet, whose name keeps it apart from those of other tests on the same clusters and broker."""

    def __init__(self, clusters: dict[str, RealCluster], broker: BrokerSettings, registry: Path) -> None:
        self.name, self.clusters, self.broker, self.registry = (
            f"f{uuid.uuid4().hex[:6]}",
            clusters,
            broker,
            registry,
        )
        self.old, self.new = reference(registry, "1.0.0"), reference(registry, "1.1.0")
        self.devices: dict[str, SimulatedDevice] = {}
        self._made: list[str] = []
        self._home = clusters["berlin"].api
        self._collection = self._home.named("modelrollouts", api="edgewright.dev/v1alpha1")

    def add(
        self, device: str, kind: type[SimulatedDevice] = SimulatedDevice, **behaviour: str
    ) -> SimulatedDevice:
        """The agent of a node begins, on the old release."""
        made = kind(self.broker, self.name, device, self.old, period_s=0.25, **behaviour)  # type: ignore[arg-type]
        self.devices[device] = made
        return made

    def add_all(self, **behaviour: str) -> None:
        """The agents of all nodes begin."""
        for cluster in NODES:
            for node in NODES[cluster]:
                if f"{cluster}.{node}" not in self.devices:
                    self.add(f"{cluster}.{node}", **behaviour)

    def roll_out(self, **spec: Any) -> str:
        """Apply a ModelRollout."""
        name = f"night-{uuid.uuid4().hex[:6]}"
        given = {"fleet": self.name, "release": "net:1.1.0", "waves": [1, "50%", "rest"], "gates": GATES}
        body = {
            "apiVersion": "edgewright.dev/v1alpha1", "kind": "ModelRollout", "metadata": {"name": name},
            "spec": {**given, "max_unavailable": 0.5, **spec},
        }  # fmt: skip
        self._home.create(self._collection, body)
        self._made.append(name)
        return name

    def ask(self, name: str, request: str) -> None:
        """An operator's request."""
        self._home.patch(
            f"{self._collection}/{name}", {"metadata": {"annotations": {"edgewright.dev/request": request}}}
        )

    def document(self, name: str) -> dict[str, Any]:
        return self._home.get(f"{self._collection}/{name}")

    def documents(self) -> list[dict[str, Any]]:
        """Every ModelRollout there is."""
        return list(self._home.get(self._collection)["items"])

    def status(self, name: str) -> RolloutStatus:
        return status_of(self.document(name))

    def ended(self, name: str, timeout_s: float = 90.0) -> RolloutStatus:
        """The status once it rests."""
        resting = ("succeeded", "failed", "aborted", "paused")
        until(lambda: self.status(name).phase in resting, timeout_s)
        return self.status(name)

    def running(self, release: ReleaseReference) -> list[str]:
        return sorted(d.name for d in self.devices.values() if d.running == release)

    @contextmanager
    def controller(self, identity: str = "one", poll_s: float = 0.3) -> Iterator[threading.Event]:
        """A controller in a thread, with the rights of its service account and no others."""
        stop = threading.Event()
        apis = [cluster.as_service_account(CONTROLLER) for cluster in self.clusters.values()]
        store = ResourceStore(apis[0], self.registry, identity, lease_s=LEASE_S)
        target = KubernetesTarget(MqttTarget(self.broker, self.name), apis, poll_s=poll_s)

        def work() -> None:
            run_controller(self.name, target, store, stop.is_set, turn_s=0.2)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        with closing(target):
            try:
                yield stop
            finally:
                stop.set()
                thread.join(20)
                assert not thread.is_alive()
                store.close()

    def controller_process(self, log: Path) -> subprocess.Popen[bytes]:
        """A controller as a process, which can be killed."""
        command = [sys.executable, "-c", "from edgewright_cli.main import main; main()"]
        files = []
        for cluster in self.clusters.values():
            cluster.as_service_account(CONTROLLER)
            path = cluster.config.with_name(f"{CONTROLLER}.kubeconfig")
            files += ["--kubeconfig", str(path), "--context", cluster.name]
        arguments = [
            "fleet", "controller", "--fleet", self.name, "--registry", str(self.registry), "--broker",
            str(self.broker), "--lease", str(LEASE_S), "--namespace", NAMESPACE, *files,
        ]  # fmt: skip
        return subprocess.Popen([*command, *arguments], stderr=log.open("ab"), env=os.environ.copy())

    def close(self) -> None:
        for device in self.devices.values():
            device.close()
        for name in self._made:
            self._home.delete(f"{self._collection}/{name}")
