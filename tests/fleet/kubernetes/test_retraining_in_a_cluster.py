"""A whole retraining that trains in a cluster: submitted, drained, killed, converted, compared, released.

The command, the API server, the scheduler, the Job controller, the Service and the ranks are real; the node's
kubelet is `PlayedNode`. A server of 1.20 has no Indexed Job, so that the command refuses a run on two nodes; the
second run leaves that question out, and the node gives the pods their indices. Nor has it a failure policy: each
pod that ends badly is a retry.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from conftest import PROFILE
from edgewright.artifact.layout import Layout
from edgewright.artifact.model_card import read_card
from edgewright.artifact.release import open_artifact, open_release
from edgewright.runtime.quantised_io import raw_input
from edgewright_fleet.retraining.kubernetes.rights import SUBMITTER, submitter_rights
from edgewright_fleet.retraining.kubernetes.settings import KubernetesSettings
from edgewright_fleet.targets.kubernetes.install import path_of
from fleet.kubernetes.played_node import PlayedNode, node_with_logs
from fleet.kubernetes.real_cluster import RealCluster, until
from fleet.retraining.field_data.stored_samples import put
from system.small_digits import small_digits

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
SYSTEM = Path(__file__).parents[2] / "system"
EDGEWRIGHT = (sys.executable, "-m", "edgewright_cli.main", "retrain")
ON_AN_OLD_SERVER = (
    sys.executable,
    "-c",
    "from edgewright_fleet.retraining.kubernetes import backend; backend.NEEDED.clear(); "
    "from edgewright_cli.main import main; main()",
    "retrain",
)
"""The command that makes a run on several nodes where the server drops the index."""


class Desk:
    """Where an operator sits: a folder that pods see as their claim, and a submitter's kubeconfig."""

    def __init__(self, folder: Path, cluster: RealCluster) -> None:
        self.volume, code = folder / "volume", folder / "code"
        self.volume.mkdir()
        code.mkdir()
        shutil.copy(SYSTEM / "digits_task.py", code)
        x, self.truth = small_digits()
        self.dark = 1 - x[1300:]
        np.savez(self.volume / "train.npz", x=x[:900], y=self.truth[:900])
        np.savez(self.volume / "test.npz", x=x[900:1300], y=self.truth[900:1300])
        (self.volume / "samples").mkdir()
        kubernetes = {
            "image": "edgewright:test", "claim": "edgewright-registry", "mount": str(self.volume),
            "context": "berlin", "cpu": "10m", "memory": "16Mi", "shared_memory": "8Mi", "rendezvous_s": 120,
            "node_selector": {"edgewright.dev/played": "here"},
        }  # fmt: skip
        self.spec: dict[str, Any] = {
            "name": "digits", "fleet": "kiosks", "code": str(code), "model": "digits_task:net",
            "release": "digits", "registry": "registry",
            "training": {
                "function": "digits_task:train", "backend": "kubernetes", "kubernetes": kubernetes,
                "processes_per_node": 2, "checkpoint_period_s": 0.5,
                "parameters": {"steps": 300, "rate": 0.003, "pause_s": 0.03},
            },
            "data": {
                "training": "train.npz", "evaluation": "test.npz", "samples": "samples", "labels": "labels.csv",
            },
            "conversion": {
                "profiles": [PROFILE], "formats": ["onnx"], "effort": "quick", "precision": "int8", "max_drop": 5,
            },
            "promotion": {"criteria": {"max_loss": 5, "max_group_loss": 10, "max_latency_ratio": 50}},
        }  # fmt: skip
        for document in submitter_rights(KubernetesSettings.model_validate(kubernetes)):
            cluster.api.apply(path_of(document), document)
        cluster.as_service_account(SUBMITTER)
        self._environment = os.environ | {
            "KUBECONFIG": str(cluster.config.with_name(f"{SUBMITTER}.kubeconfig"))
        }

    def begin(self, *arguments: str, command: tuple[str, ...] = EDGEWRIGHT) -> subprocess.Popen[str]:
        (self.volume / "spec.yaml").write_text(yaml.safe_dump(self.spec))
        return subprocess.Popen(
            [*command, *arguments], cwd=self.volume, env=self._environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def retrain(self, *arguments: str) -> str:
        process = self.begin(*arguments)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        return out

    def checkpoints(self, run: str) -> list[Path]:
        """Those of a run that are whole."""
        return list(self.volume.glob(f"runs/{run}/training/checkpoints/*/whole.json"))

    def sample_the_dark(self) -> None:
        """What devices saw at night, as they would have sent it, and its labels."""
        release = open_release(Layout.open(self.volume / "registry"), "digits:1.0.0")
        [artifact] = [open_artifact(release.layout, one) for one in release.artifacts.values()]
        [tensor] = artifact.manifest.inputs
        rows = ["digest,label"]
        for number, (image, label) in enumerate(zip(self.dark, self.truth[1300:], strict=True)):
            digest = put(
                self.volume / "samples", number, spec=tensor, raw=raw_input(image[None], tensor),
                model="digits", profile=PROFILE, classes=10, reason="uniform", inclusion_probability=1.0,
                captured=datetime.now(timezone.utc),
            )  # fmt: skip
            rows.append(f"{digest},{label}")
        (self.volume / "labels.csv").write_text("\n".join(rows) + "\n")


@pytest.fixture
def node(berlin: RealCluster, tmp_path: Path) -> Iterator[PlayedNode]:
    folder = tmp_path / "node"
    folder.mkdir()
    with (
        node_with_logs(berlin, "played", folder) as logs,
        PlayedNode(berlin, "played", folder, logs) as played,
    ):
        yield played


def test_a_retraining_whose_pods_are_drained_and_killed_ends_in_a_better_release(
    berlin: RealCluster, node: PlayedNode, tmp_path: Path
) -> None:
    desk = Desk(tmp_path, berlin)
    first = desk.begin("submit", "spec.yaml", "--why", "the first")
    until(lambda: desk.checkpoints("digits-0001"), 300)
    drained = node.running()[0]
    eviction = {
        "apiVersion": "policy/v1beta1", "kind": "Eviction",
        "metadata": {"name": drained, "namespace": berlin.api.namespace},
    }  # fmt: skip
    berlin.api.create(f"{berlin.api.named('pods', drained)}/eviction", eviction)
    status = json.loads(desk.retrain("status", "digits-0001", "--json"))
    assert status["stage"] == "training" and status["steps"] == 300, status
    out, err = first.communicate(timeout=300)
    assert first.returncode == 3 and "a person decides" in out, out + err
    (name, _, code), (again, _, well) = node.ended
    assert (name, code, well) == (drained, 75, 0) and again != drained, node.ended
    assert "goes on after step" in node.log(again)
    lines = desk.retrain("logs", "digits-0001").splitlines()
    assert any(line.startswith("[0] goes on after step") for line in lines), lines
    desk.retrain("promote", "digits-0001", "--why", "none serves")

    desk.sample_the_dark()
    desk.spec["training"] |= {"nodes": 2, "processes_per_node": 1}
    desk.spec["training"]["parameters"] |= {"steps": 900, "pause_s": 0.005}
    refused = desk.begin("submit", "spec.yaml")
    _, err = refused.communicate(timeout=120)
    assert refused.returncode == 2 and "need an Indexed Job" in err, err
    second = desk.begin("submit", "spec.yaml", "--why", "the nights", command=ON_AN_OLD_SERVER)
    until(lambda: desk.checkpoints("digits-0003"), 300)
    killed = node.running()[1]
    node.kill(killed)
    out, err = second.communicate(timeout=300)
    assert second.returncode == 0 and "digits:1.0.1 is in the registry" in out, out + err
    codes = [(index, code) for _, index, code in node.ended[2:]]
    assert sorted(codes) == [(0, 0), (1, 0), (1, 137)], node.ended
    links = json.loads(desk.retrain("history", "digits-0003", "--json"))
    assert [link["kind"] for link in links] == [
        "trigger", "data", "training", "conversion", "comparison", "release", "rollout",
    ]  # fmt: skip
    assert links[2]["evidence"]["backend"] == "kubernetes" and links[2]["evidence"]["ranks"] == 2
    assert links[4]["evidence"]["verdict"] == "better"
    card = read_card(open_release(Layout.open(desk.volume / "registry"), "digits:1.0.1"))
    assert card is not None and str(card.lineage.base) == "digits:1.0.0"
