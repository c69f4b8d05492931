"""`PlayedNode`: a node of a real cluster whose kubelet is the test, and whose pods are real processes here.

The API server, the scheduler, the controllers and the Service are real, and all is read from them: a pod's
command, arguments and environment, the ConfigMaps that it mounts, and from the Endpoints who is behind a name.
What a kubelet does is done here: the files are where the pod's specification mounts them (an overlay over `/etc`,
in a mount namespace of its own), names resolve as the cluster's DNS would have it, SIGTERM comes when a pod is
deleted, and the container's end is written into the pod's status. All pods share the network of the cluster's
programs.

There is no image (the test's own Python is it), no cgroup, and no other user; a claim is a folder of this machine.
A server of 1.20 has no Indexed Job: a pod that asks for an index gets the least that is free, as its controller
would give it.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgewright.errors import ClusterError
from fleet.kubernetes.real_cluster import RealCluster

Json = dict[str, Any]
KUBELET = Path(__file__).with_name("log_kubelet.py")
RUN = "edgewright.dev/training-run"
INDEX = "JOB_COMPLETION_INDEX"
ENTER = """
mount -t overlay overlay -o lowerdir="$0":/etc /etc && echo "$1" > /proc/sys/kernel/hostname && shift && exec "$@"
"""
"""Arguments: a folder with what the pod has below `/etc`, its host name, and its command."""
BEAT_S = 5.0
"""Between two words of the node that it lives; the cluster waits for 40 s."""


@contextlib.contextmanager
def node_with_logs(cluster: RealCluster, name: str, folder: Path) -> Iterator[Path]:
    """A node labelled `edgewright.dev/NAME: here` whose kubelet only serves logs: FOLDER/logs/POD is printed."""
    pair, certificate = folder / "pair.pem", folder / "certificate.pem"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=logs", "-days", "1"]
    subprocess.run(
        [*request, "-keyout", str(pair), "-out", str(certificate)], check=True, capture_output=True
    )
    pair.write_text(pair.read_text() + certificate.read_text())
    logs = folder / "logs"
    logs.mkdir()
    kubelet = cluster.run_inside(sys.executable, str(KUBELET), str(logs), str(pair))
    assert kubelet.stdout is not None
    amounts = {"cpu": "4", "memory": "4Gi", "pods": "10"}
    node: Json = {
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {f"edgewright.dev/{name}": "here"}},
        "status": {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": int(kubelet.stdout.readline())}},
            "conditions": [_ready()], "allocatable": amounts, "capacity": amounts,
        },
    }  # fmt: skip
    cluster.api.create("/api/v1/nodes", node)
    try:
        yield logs
    finally:
        cluster.api.delete(f"/api/v1/nodes/{name}")
        kubelet.kill()
        kubelet.wait()


class PlayedNode:
    """The pods of training runs on one node, each as processes here."""

    def __init__(self, cluster: RealCluster, name: str, folder: Path, logs: Path) -> None:
        self.name = name
        self._cluster, self._folder, self._logs = cluster, folder, logs
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._index: dict[str, int] = {}
        self._told: set[str] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self.ended: list[tuple[str, int, int]] = []
        """Of each pod that ended: its name, its index, and its exit code (of a signal: 128 and its number)."""

    def __enter__(self) -> PlayedNode:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def running(self) -> dict[int, str]:
        """The pods whose process lives, by index."""
        alive = [pod for pod, process in self._processes.copy().items() if process.poll() is None]
        return {self._index[pod]: pod for pod in alive}

    def kill(self, pod: str) -> None:
        """Everything in the pod is gone at once, as where it ran out of memory."""
        os.killpg(self._processes[pod].pid, signal.SIGKILL)

    def log(self, pod: str) -> str:
        """What a pod has printed."""
        return (self._logs / pod).read_text()

    def _live(self) -> None:
        beaten_s = 0.0
        while not self._over.wait(0.2):
            try:
                if time.monotonic() - beaten_s > BEAT_S:
                    beaten_s = time.monotonic()
                    self._patch(f"/api/v1/nodes/{self.name}/status", {"conditions": [_ready()]})
                pods = self._cluster.api.get(
                    self._cluster.api.named("pods"),
                    labelSelector=RUN, fieldSelector=f"spec.nodeName={self.name}",
                )["items"]  # fmt: skip
                for pod in pods:
                    self._look_after(pod)
            except (ClusterError, OSError) as error:  # it is tried again
                sys.stderr.write(f"node {self.name}: {error}\n")

    def _look_after(self, pod: Json) -> None:
        name, phase = pod["metadata"]["name"], pod["status"]["phase"]
        process, leaving = self._processes.get(name), "deletionTimestamp" in pod["metadata"]
        if process is None:
            if phase == "Pending" and not leaving:
                self._start(pod)
            return
        code = process.poll()
        if code is None:
            self._resolve(pod)
            if leaving and name not in self._told:
                self._told.add(name)
                process.send_signal(signal.SIGTERM)
        elif phase == "Running":
            (self._logs / f"{name}.ended").touch()
            code = code if code >= 0 else 128 - code
            self.ended.append((name, self._index[name], code))
            state = {
                "exitCode": code, "finishedAt": _now(), "reason": "Error" if code else "Completed",
            }  # fmt: skip
            self._say(pod, "Failed" if code else "Succeeded", {"terminated": state})
        if code is not None and leaving:
            self._cluster.api.delete(self._cluster.api.named("pods", name), gracePeriodSeconds="0")

    def _start(self, pod: Json) -> None:
        name, spec = pod["metadata"]["name"], pod["spec"]
        [container] = spec["containers"]
        environment = {one["name"]: one.get("value", "") for one in container.get("env", ())}
        arguments = [*container["command"], *container["args"]]
        self._index[name] = 0
        if f"$({INDEX})" in " ".join(arguments):
            taken = set(self.running())
            self._index[name] = next(i for i in range(len(taken) + 1) if i not in taken)
            environment[INDEX] = str(self._index[name])
            annotations = {"batch.kubernetes.io/job-completion-index": environment[INDEX]}
            self._cluster.api.patch(
                self._cluster.api.named("pods", name), {"metadata": {"annotations": annotations}}
            )
        arguments = [
            re.sub(r"\$\((\w+)\)", lambda found: environment[found[1]], argument) for argument in arguments
        ]
        etc = self._folder / name / "etc"
        for volume in spec["volumes"]:
            if "configMap" in volume:
                [mounted] = [m for m in container["volumeMounts"] if m["name"] == volume["name"]]
                self._write(volume["configMap"], etc / Path(mounted["mountPath"]).relative_to("/etc"))
        (etc / "hosts").write_text(self._own_names(pod))
        image = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        if "PYTHONPATH" in os.environ:
            image["PYTHONPATH"] = os.environ["PYTHONPATH"]
        enter = [*self._cluster.inside, "unshare", "--mount", "--uts", "sh", "-c", ENTER, str(etc)]
        with (self._logs / name).open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [*enter, self._host_name(pod), *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=image | environment,
                start_new_session=True,
            )  # fmt: skip
        # Not of loopback, which no Endpoints take.
        self._say(pod, "Running", {"running": {"startedAt": _now()}}, podIP=self._address(pod))

    def _write(self, source: Json, folder: Path) -> None:
        """The files of a ConfigMap, where a pod mounts them."""
        data = self._cluster.api.get(self._cluster.api.named("configmaps", source["name"]))["data"]
        for item in source["items"]:
            path = folder / item["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(data[item["key"]], encoding="utf-8")

    def _address(self, pod: Json) -> str:
        return f"10.88.0.{self._index[pod['metadata']['name']] + 1}"

    def _resolve(self, pod: Json) -> None:
        """Have the names of whoever is behind the Service resolve in a pod, to loopback addresses of their own."""
        service = pod["spec"].get("subdomain")
        try:
            found = self._cluster.api.get(self._cluster.api.named("endpoints", service))
        except ClusterError as error:
            if error.status == 404:  # a run on one node has no Service
                return
            raise
        lines = []
        for subset in found.get("subsets") or ():
            for one in [*(subset.get("addresses") or ()), *(subset.get("notReadyAddresses") or ())]:
                number = one["ip"].rpartition(".")[2]
                lines.append(
                    f"127.0.0.{number} {pod['metadata']['labels'][RUN]}-{int(number) - 1}.{service}\n"
                )
        hosts = self._folder / pod["metadata"]["name"] / "etc" / "hosts"
        if (text := self._own_names(pod) + "".join(lines)) != hosts.read_text():
            hosts.write_text(text)

    def _own_names(self, pod: Json) -> str:
        """What a kubelet writes into `/etc/hosts`."""
        number = self._index[pod["metadata"]["name"]] + 1
        return f"127.0.0.1 localhost\n127.0.0.{number} {self._host_name(pod)}\n"

    def _host_name(self, pod: Json) -> str:
        """As the controller of an Indexed Job would have it: the Job's name and the index; else the pod's name."""
        name = str(pod["metadata"]["name"])
        indexed = INDEX in " ".join(pod["spec"]["containers"][0]["args"])
        return f"{pod['metadata']['labels'][RUN]}-{self._index[name]}" if indexed else name

    def _say(self, pod: Json, phase: str, state: Json, **more: str) -> None:
        container = {
            "name": "node", "image": "i", "imageID": "i", "ready": "running" in state, "restartCount": 0,
            "state": state,
        }  # fmt: skip
        path = f"{self._cluster.api.named('pods', pod['metadata']['name'])}/status"
        self._patch(path, {"phase": phase, "containerStatuses": [container], **more})

    def _patch(self, path: str, status: Json) -> None:
        self._cluster.api.patch(path, {"status": status})


def _ready() -> Json:
    return {"type": "Ready", "status": "True", "lastHeartbeatTime": _now()}


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
