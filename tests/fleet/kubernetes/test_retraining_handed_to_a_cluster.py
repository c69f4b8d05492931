"""What a retraining releases becomes a ModelRollout of a real cluster, by the verbs of `fleet rollout`.

Training, conversion, registry, API server and controller are real; the agents are simulated beside their nodes.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from conftest import PROFILE
from edgewright.mqtt import BrokerSettings
from edgewright_fleet.retraining.releases import serving_release
from edgewright_fleet.retraining.run import Run
from edgewright_fleet.retraining.spec import load_spec
from fleet.kubernetes.fleet_on_nodes import GATES, FleetOnNodes
from fleet.kubernetes.real_cluster import RealCluster, until
from fleet.kubernetes.test_verbs import Operator
from fleet.simulated_device import SimulatedDevice
from system.small_digits import small_digits

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
EDGEWRIGHT = (sys.executable, "-m", "edgewright_cli.main")
SYSTEM = Path(__file__).parents[2] / "system"


class Bench:
    """A folder with a specification whose rollouts are the cluster's, and the controller's registry in it."""

    def __init__(self, folder: Path, fleet: FleetOnNodes, operator: Operator) -> None:
        self.folder, self.fleet = folder, fleet
        x, y = small_digits()
        np.savez(folder / "train.npz", x=x[:1000], y=y[:1000])
        np.savez(folder / "test.npz", x=x[1000:], y=y[1000:])
        shutil.copy(SYSTEM / "digits_task.py", folder)
        gates = {**GATES, "window_s": 4}  # long enough to lose a driver in
        self.template = operator.spec(fleet, fleet.name, release="digits:1.0.0", gates=gates)
        operator.begun += [f"{fleet.name}-1.0.0", f"{fleet.name}-1.0.1"]
        cluster = {"context": operator.cluster.name, "kubeconfig": str(operator.config)}
        self.spec: dict[str, Any] = {
            "name": "digits", "fleet": fleet.name, "model": "digits_task:net", "release": "digits",
            "registry": str(fleet.registry),
            "training": {"function": "digits_task:train", "parameters": {"steps": 60, "rate": 0.003}},
            "data": {"training": "train.npz", "evaluation": "test.npz"},
            "conversion": {"profiles": [PROFILE], "formats": ["onnx"], "effort": "quick", "max_drop": 5},
            "promotion": {"rollout": self.template.name, "start": True, "cluster": cluster},
        }  # fmt: skip

    def begins(self, *arguments: str) -> subprocess.Popen[str]:
        (self.folder / "spec.yaml").write_text(yaml.safe_dump(self.spec))
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([*EDGEWRIGHT, *arguments], cwd=self.folder, text=True, **pipes)

    def does(self, *arguments: str) -> tuple[int, str, str]:
        process = self.begins(*arguments)
        out, said = process.communicate(timeout=300)
        return process.returncode, out, said

    def joins(self, device: str, **behaviour: str) -> SimulatedDevice:
        """The agent of a node begins and serves nothing."""
        made = SimulatedDevice(
            self.fleet.broker, self.fleet.name, device, None, period_s=0.25, profile=PROFILE, **behaviour
        )
        self.fleet.devices[device] = made
        return made


@pytest.fixture
def bench(
    clusters: dict[str, RealCluster], fleet_broker: BrokerSettings, registry: Path, tmp_path: Path
) -> Iterator[Bench]:
    fleet = FleetOnNodes(clusters, fleet_broker, registry)
    operator = Operator(clusters["berlin"], tmp_path)
    try:
        yield Bench(tmp_path, fleet, operator)
    finally:
        fleet.close()
        operator.close()


def test_what_is_released_is_rolled_out_by_the_cluster_s_controller_also_where_its_driver_is_killed(
    bench: Bench,
) -> None:
    fleet, name = bench.fleet, f"{bench.fleet.name}-1.0.0"
    devices = [bench.joins(f"berlin.{node}") for node in ("b0", "b1")]
    code, _, said = bench.does("retrain", "submit", "spec.yaml", "--store", "rollouts.sqlite")
    assert (code, said.count("\n")) == (2, 1) and "promotion.cluster" in said, said
    code, out, said = bench.does("retrain", "submit", "spec.yaml")
    assert code == 3 and "a person decides" in out, said
    with fleet.controller():
        driver = bench.begins("retrain", "promote", "digits-0001", "--why", "none serves")
        until(lambda: name in {d["metadata"]["name"] for d in fleet.documents()})
        until(lambda: fleet.status(name).phase == "observing")
        driver.kill()
        driver.communicate()
        code, out, said = bench.does("retrain", "resume", "digits-0001")
    assert code == 0 and f"rollout {name} succeeded: digits:1.0.0 runs on 2 of 2" in out, out + said
    assert "wave 2 of 2 begins" in said, said
    assert fleet.document(name)["spec"]["release"] == "digits:1.0.0"
    first = serving_release(load_spec(bench.folder / "spec.yaml"))
    assert first is not None and [device.ran for device in devices] == [[first.digest]] * 2

    bench.spec["promotion"]["start"] = False
    assert bench.does("retrain", "submit", "spec.yaml")[0] == 3
    code, out, said = bench.does("retrain", "promote", "digits-0002", "--why", "to be tried")
    assert code == 0 and "digits-0002 is done: ready: edgewright fleet rollout start " in out, out + said
    ready = shlex.split(out.partition("ready: ")[2])
    for device in devices:
        device.broken = "every"
    with fleet.controller("another"):
        code, out, said = bench.does(*ready[1:])
    assert code == 3 and out.startswith(f"{fleet.name}-1.0.1 failed: "), out + said
    assert [device.ran for device in devices] == [[first.digest]] * 2


def test_a_release_that_the_cluster_takes_back_is_exit_code_3_and_is_not_what_serves(bench: Bench) -> None:
    bench.joins("berlin.b0", broken="every")
    bench.joins("berlin.b1", broken="every")
    assert bench.does("retrain", "submit", "spec.yaml")[0] == 3
    with bench.fleet.controller():
        code, out, said = bench.does("retrain", "promote", "digits-0001", "--why", "none serves")
    assert code == 3 and f"rollout {bench.fleet.name}-1.0.0 failed: " in out, out + said
    assert Run(bench.folder / "runs" / "digits-0001").taken_back
    assert serving_release(load_spec(bench.folder / "spec.yaml")) is None


def test_a_release_that_the_controller_has_not_got_yet_is_refused_and_rolled_out_once_it_has(
    bench: Bench,
) -> None:
    fleet, name = bench.fleet, f"{bench.fleet.name}-1.0.0"
    bench.joins("berlin.b0")
    bench.spec["registry"] = "registry-of-the-trainer"
    assert bench.does("retrain", "submit", "spec.yaml")[0] == 3
    with fleet.controller():
        code, out, said = bench.does("retrain", "promote", "digits-0001", "--why", "none serves")
        assert code == 2 and f"rollout '{name}' was refused: " in said.splitlines()[-1], out + said
        shutil.copytree(bench.folder / "registry-of-the-trainer", fleet.registry, dirs_exist_ok=True)
        until(lambda: fleet.status(name).state is not None)
        code, out, said = bench.does("retrain", "resume", "digits-0001")
    assert code == 0 and f"rollout {name} succeeded: digits:1.0.0 runs on 1 of 1" in out, out + said
