"""`RealCluster`: a real cluster from outside, how one is started and Edgewright installed in it."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgewright.mqtt import BrokerSettings
from edgewright_fleet.targets.kubernetes.api import Cluster, from_kubeconfig
from edgewright_fleet.targets.kubernetes.broker_access import BrokerAccess
from edgewright_fleet.targets.kubernetes.install import apply
from edgewright_fleet.targets.kubernetes.installation import AGENT, Installation
from fleet.kubernetes.cluster_host import CERTIFICATE, kubeconfig

HOST = Path(__file__).with_name("cluster_host.py")
NAMESPACE, FLEET = "edgewright", "kiosks"
NODES = {"berlin": [f"b{index}" for index in range(6)], "hamburg": [f"h{index}" for index in range(6)]}


class RealCluster:
    """One running cluster: its API through an administrator's client, and its programs by name."""

    def __init__(self, name: str, process: subprocess.Popen[str], config: Path) -> None:
        self.name, self.config = name, config
        self._process = process
        self.api: Cluster = from_kubeconfig([config], [name], NAMESPACE)[0]

    def kill(self, program: str) -> None:
        """Kill a program or, by its name, a node's kubelet."""
        self._tell("stop", program)

    def start(self, program: str) -> None:
        """Start it again; the API server is waited for."""
        self._tell("start", program)

    def as_service_account(self, account: str) -> Cluster:
        """The API as a service account sees it, by a token that the API server made."""
        config = self.config.with_name(f"{account}.kubeconfig")
        config.write_text(kubeconfig(self.name, self.api.server, self.token(account), self.certificate))
        return from_kubeconfig([config], [self.name], NAMESPACE)[0]

    def token(self, account: str, bound_to: dict[str, str] | None = None) -> str:
        """A service account's token, which ends with the object that it is bound to."""
        path = self.api.named("serviceaccounts", f"{account}/token")
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [], "boundObjectRef": bound_to},
        }
        return str(self.api.create(path, request)["status"]["token"])

    @property
    def certificate(self) -> Path:
        """Who vouches for the API server."""
        return self.config.parent / CERTIFICATE

    @property
    def inside(self) -> list[str]:
        """What a command begins with that runs in the network of the cluster's own programs."""
        return ["nsenter", f"--net=/proc/{self._process.pid}/ns/net"]

    def run_inside(self, *command: str) -> subprocess.Popen[str]:
        """A program in the network of the cluster's own programs."""
        return subprocess.Popen([*self.inside, *command], stdout=subprocess.PIPE, text=True)

    def _tell(self, word: str, name: str) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{word} {name}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"


@contextmanager
def hosted(name: str, folder: Path, binaries: Path) -> Iterator[Callable[[], RealCluster]]:
    """A cluster that is on its way; the function waits until it is there."""
    token_file = folder / "admin.kubeconfig"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = f"https://127.0.0.1:{listener.getsockname()[1]}"
        listener.set_inheritable(True)
        command = [
            "unshare",
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            sys.executable,
            str(HOST),
        ]
        process = subprocess.Popen(
            [
                *command,
                str(binaries),
                str(folder),
                str(listener.fileno()),
                *(f"{n},gateway" for n in NODES[name]),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[listener.fileno()],
        )

        def wait() -> RealCluster:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", f"the cluster did not start: see {folder}"
            inside = token_file.read_text()
            token = inside.split('"token": "')[1].split('"')[0]
            config = folder / "outside.kubeconfig"
            config.write_text(kubeconfig(name, server, token, folder / CERTIFICATE))
            return RealCluster(name, process, config)

        try:
            yield wait
        finally:
            process.kill()
            process.wait()


def install(cluster: RealCluster, broker: BrokerSettings) -> list[str]:
    """Install Edgewright, with the claim that it expects an operator to have made."""
    applied: list[str] = []
    installation = Installation(
        fleet=FLEET, cluster=cluster.name, image="edgewright:test", broker=BrokerAccess(broker),
        profiles=("gateway",), with_controller=cluster.name == "berlin",
    )  # fmt: skip
    apply(installation, cluster.api, applied.append)
    volume = {
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "registry"},
        "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadOnlyMany"], "storageClassName": "",
            "hostPath": {"path": "/tmp"}, "claimRef": {"namespace": NAMESPACE, "name": "edgewright-registry"},
        },
    }  # fmt: skip
    claim = {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "edgewright-registry", "namespace": NAMESPACE},
        "spec": {
            "accessModes": ["ReadOnlyMany"], "storageClassName": "", "volumeName": "registry",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }  # fmt: skip
    cluster.api.apply("/api/v1/persistentvolumes/registry", volume)
    cluster.api.apply(cluster.api.named("persistentvolumeclaims", "edgewright-registry"), claim)
    return applied


def until(holds: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    """What `holds` gives as soon as that is true."""
    end = time.monotonic() + timeout_s
    while not (value := holds()):
        assert time.monotonic() < end, f"did not come to hold in {timeout_s:g} s"
        time.sleep(0.2)
    return value


def agent_pod(cluster: RealCluster, node: str) -> dict[str, Any]:
    """The agent's pod on a node."""
    selector = f"app.kubernetes.io/name={AGENT}"
    pods = cluster.api.get(cluster.api.named("pods"), labelSelector=selector)["items"]
    return next(pod for pod in pods if pod["spec"].get("nodeName") == node)


def may(api: Cluster, verb: str, group: str, resource: str, namespace: str, name: str = "") -> bool:
    """Whether the API server lets whoever `api` is do this."""
    kind, _, part = resource.partition("/")
    wish = {
        "verb": verb,
        "group": group,
        "resource": kind,
        "subresource": part,
        "namespace": namespace,
        "name": name,
    }
    body = {"spec": {"resourceAttributes": wish}, "apiVersion": "authorization.k8s.io/v1"}
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    return bool(api.create(path, body | {"kind": "SelfSubjectAccessReview"})["status"]["allowed"])
