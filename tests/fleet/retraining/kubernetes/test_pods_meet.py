"""Two "pods" as real processes, each with the manifest's command line, under host names that resolve to loopback.

What a kubelet does is done here: the ConfigMap becomes files, the index goes into the arguments, and the headless
Service's names resolve, by a hosts file of the processes' own. The test is the Job controller: it replaces a pod
under its index. What is not tested is a container.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import free_port
from edgewright_fleet.retraining.job import TrainingJob
from edgewright_fleet.retraining.kubernetes import pods as pods_module
from edgewright_fleet.retraining.kubernetes.in_pod import TOLD
from edgewright_fleet.retraining.kubernetes.objects import job_objects
from edgewright_fleet.retraining.kubernetes.pods import CODE, CONFIG
from edgewright_fleet.retraining.kubernetes.settings import KubernetesSettings
from edgewright_fleet.retraining.training.progress import figures

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
WAIT_S = 180.0
FUNCTION = """
import os, socket, time
import torch

def train(context):
    model = context.distribute(torch.nn.Linear(8, 1))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    state = {"model": model, "optimiser": optimiser}
    done, steps = context.restore(state), context.parameters["steps"]
    print(f"rank {context.rank} of {context.world_size} begins at {done}, master {os.environ['MASTER_ADDR']}")
    if steps < 0:
        raise ValueError(f"steps: {steps}")
    while done < steps and not context.stopping:
        loss = model(torch.randn(4, 8)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        done += 1
        context.report(done, steps, loss=loss.detach())
        context.checkpoint(state, done)
        time.sleep(context.parameters["pause_s"])
    if not context.stopping:
        context.save(model)
"""


class Pods:
    """The pods of one run on two nodes."""

    def __init__(self, folder: Path, job: TrainingJob, settings: KubernetesSettings) -> None:
        self.job, self._folder = job, folder
        config, service, self.document = job_objects(job, settings)
        template = self.document["spec"]["template"]["spec"]
        [container] = template["containers"]
        self._command = [*container["command"], *container["args"]]
        files = {
            item["path"]: item["key"]
            for v in template["volumes"]
            if v["name"] == "code"
            for item in v["configMap"]["items"]
        }
        for path, key in files.items():
            (folder / "code" / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / "code" / path).write_text(config["data"][key])
        (folder / "job.json").write_text(config["data"]["job.json"].replace(str(CODE), str(folder / "code")))
        self._names = [
            f"127.0.0.{i + 1} {config['metadata']['name']}-{i}.{service['metadata']['name']}\n"
            for i in (0, 1)
        ]
        (folder / "hosts").write_text("127.0.0.1 localhost\n")
        self.running: dict[int, subprocess.Popen[bytes]] = {}

    def publish(self) -> None:
        """The Service has found the pods: their names resolve."""
        with (self._folder / "hosts").open("a") as hosts:
            hosts.writelines(self._names)

    def start(self, index: int) -> None:
        """Start the pod of an index, as the Job controller and a kubelet do."""
        arguments = [
            one.replace("$(JOB_COMPLETION_INDEX)", str(index)).replace(str(CONFIG), str(self._folder))
            for one in self._command
        ]
        assert arguments[0] == "python"
        with_names = 'mount --bind "$0" /etc/hosts && exec "$@"'
        self.running[index] = subprocess.Popen(
            [
                "unshare",
                "--mount",
                "sh",
                "-c",
                with_names,
                str(self._folder / "hosts"),
                sys.executable,
                *arguments[1:],
            ],
            stdout=self.log(index).open("ab"),
            stderr=subprocess.STDOUT,
            env=os.environ | {"JOB_COMPLETION_INDEX": str(index)},
            start_new_session=True,
        )

    def log(self, index: int) -> Path:
        return self._folder / f"pod-{index}.log"

    def text(self, index: int) -> str:
        return self.log(index).read_text()

    def kill(self, index: int) -> None:
        """The node is lost: everything in the pod is gone at once."""
        os.killpg(self.running[index].pid, signal.SIGKILL)
        self.running.pop(index).wait()

    def preempt(self, index: int) -> None:
        """SIGTERM to the container's first process."""
        self.running[index].send_signal(signal.SIGTERM)

    def ended(self, index: int) -> int:
        """The pod's exit code, once it has ended."""
        return self.running.pop(index).wait(WAIT_S)

    def until(self, holds: Callable[[], Any]) -> Any:
        end = time.monotonic() + WAIT_S
        while not (value := holds()):
            assert time.monotonic() < end, self.text(0) + self.text(1)
            assert all(pod.poll() is None for pod in self.running.values()), self.text(0) + self.text(1)
            time.sleep(0.05)
        return value

    def figures(self) -> dict[str, Any]:
        return figures(self.job)


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Pods]]:
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("host names of one's own need the right to make a mount namespace")
    made: list[Pods] = []

    def start(steps: int, *, names_at_once: bool = True, **given: Any) -> Pods:
        monkeypatch.setattr(pods_module, "PORT", free_port())
        source = tmp_path / "source"
        source.mkdir()
        (source / "straight.py").write_text(FUNCTION)
        volume = tmp_path / "volume"
        job = TrainingJob(
            name="two-pods", function="straight:train", code=source, folder=volume / "run", nodes=2,
            parameters={"steps": steps, "pause_s": 0.05}, checkpoint_period_s=0.2, **given,
        )  # fmt: skip
        settings = KubernetesSettings(image="i", claim="c", mount=volume, rendezvous_s=60)
        pods = Pods(tmp_path, job, settings)
        made.append(pods)
        if names_at_once:
            pods.publish()
        for index in (1, 0):  # that of node 0 need not be the first
            pods.start(index)
        return pods

    yield start
    for pods in made:
        for index in list(pods.running):
            pods.kill(index)


def test_two_pods_meet_by_the_manifests_command_line_and_finish(begin: Callable[..., Pods]) -> None:
    pods = begin(steps=20, names_at_once=False)
    pods.until(lambda: "gai error" in pods.text(1))  # node 0 has no name yet, and the pod waits
    pods.publish()
    assert [pods.ended(0), pods.ended(1)] == [0, 0], pods.text(0) + pods.text(1)
    assert "[0] rank 0 of 2 begins at 0, master two-pods-0.two-pods" in pods.text(0)
    assert "[1] rank 1 of 2 begins at 0, master two-pods-0.two-pods" in pods.text(1)
    assert (pods.job.folder / "output/model.safetensors").is_file()
    told = [line for line in pods.text(0).splitlines() if line.startswith(TOLD)]
    assert json.loads(told[-1][len(TOLD) :])["step"] == 20
    assert TOLD not in pods.text(1)


def test_a_pod_whose_node_is_lost_is_replaced_and_the_other_pod_waits_for_it(
    begin: Callable[..., Pods],
) -> None:
    pods = begin(steps=60)
    pods.until(lambda: (pods.figures()["checkpoint_step"] or 0) >= 5)
    pods.kill(1)
    pods.start(1)
    assert [pods.ended(0), pods.ended(1)] == [0, 0], pods.text(0) + pods.text(1)
    begun = [int(line.split()[7].rstrip(",")) for line in pods.text(1).splitlines() if "begins at" in line]
    assert len(begun) == 2 and begun[0] == 0 and begun[1] >= 5, begun
    assert pods.figures()["step"] == 60


def test_a_preempted_pod_leaves_a_checkpoint_and_the_others_wait_for_the_next(
    begin: Callable[..., Pods],
) -> None:
    pods = begin(steps=60)
    pods.until(lambda: (pods.figures().get("step") or 0) >= 5)
    pods.preempt(1)
    assert pods.ended(1) == 75, pods.text(1)
    saved = pods.figures()["checkpoint_step"]
    pods.start(1)
    assert [pods.ended(0), pods.ended(1)] == [0, 0], pods.text(0) + pods.text(1)
    assert f"rank 1 of 2 begins at {saved}," in pods.text(1)


def test_where_the_nodes_meet_is_preempted_and_all_pods_ask_to_be_replaced(
    begin: Callable[..., Pods],
) -> None:
    pods = begin(steps=60)
    pods.until(lambda: (pods.figures().get("step") or 0) >= 5)
    pods.preempt(0)
    assert [pods.ended(0), pods.ended(1)] == [75, 75], pods.text(0) + pods.text(1)
    saved = pods.figures()["checkpoint_step"]
    for again in (0, 1):
        pods.start(again)
    assert [pods.ended(0), pods.ended(1)] == [0, 0], pods.text(0) + pods.text(1)
    assert f"rank 0 of 2 begins at {saved}," in pods.text(0)


def test_where_the_nodes_met_is_lost_and_the_other_pod_asks_to_be_replaced(
    begin: Callable[..., Pods],
) -> None:
    pods = begin(steps=60)
    pods.until(lambda: (pods.figures()["checkpoint_step"] or 0) >= 5)
    pods.kill(0)
    assert pods.ended(1) == 75, pods.text(1)
    for again in (0, 1):
        pods.start(again)
    assert [pods.ended(0), pods.ended(1)] == [0, 0], pods.text(0) + pods.text(1)
    assert pods.figures()["step"] == 60


def test_a_function_that_raises_fails_the_job_whichever_pod_says_so(begin: Callable[..., Pods]) -> None:
    pods = begin(steps=-1, max_restarts=0)
    assert 1 in [pods.ended(0), pods.ended(1)], pods.text(0) + pods.text(1)
    assert "ValueError: steps: -1" in pods.text(0) + pods.text(1)
    [rule] = [r for r in pods.document["spec"]["podFailurePolicy"]["rules"] if r["action"] == "FailJob"]
    assert rule["onExitCodes"]["values"] == [1, 2]
