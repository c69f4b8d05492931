"""What is installed in a real cluster: what the API server takes and refuses, and who may do what."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgewright.errors import ClusterError, ConfigError
from edgewright.mqtt import BrokerSettings
from edgewright_cli.fleet import fleet as fleet_command
from edgewright_fleet.targets.kubernetes.resource import status_of
from edgewright_fleet.targets.kubernetes.store import ResourceStore
from fleet.kubernetes.real_cluster import RealCluster, install, may, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
API = "edgewright.dev/v1alpha1"


def rollout(**spec: object) -> dict[str, object]:
    given = {"fleet": "f", "release": "net:1.1.0", **spec}
    return {"apiVersion": API, "kind": "ModelRollout", "metadata": {"name": "checked"}, "spec": given}


def test_to_install_again_changes_nothing(berlin: RealCluster, fleet_broker: BrokerSettings) -> None:
    path = berlin.api.named("daemonsets", "edgewright-agent-gateway", api="apps/v1")
    before = berlin.api.get(path)["metadata"]
    applied = install(berlin, fleet_broker)
    assert "CustomResourceDefinition modelrollouts.edgewright.dev" in applied
    assert berlin.api.get(path)["metadata"]["generation"] == before["generation"]


def test_a_drain_leaves_a_controller(berlin: RealCluster) -> None:
    path = berlin.api.named("poddisruptionbudgets", "edgewright-controller", api="policy/v1beta1")
    until(lambda: berlin.api.get(path)["status"].get("disruptionsAllowed") == 1)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"labels": ["berlin"]}, "spec.labels"),
        ({"devices_per_minute": 0}, "spec.devices_per_minute"),
        ({"max_unavailable": 1}, "spec.max_unavailable"),
        ({"on_failure": "hope"}, "spec.on_failure"),
        ({"gates": {"window_s": -1}}, "spec.gates.window_s"),
        ({"release": "no-version"}, "spec.release"),
        ({"fleet": None}, "spec.fleet"),
    ],
)
def test_the_api_server_refuses_what_has_the_wrong_type_or_is_out_of_bounds(
    berlin: RealCluster, wrong: dict[str, object], said: str
) -> None:
    with pytest.raises(ClusterError, match=re.escape(said)) as refused:
        berlin.api.create(berlin.api.named("modelrollouts", api=API) + "?dryRun=All", rollout(**wrong))
    assert refused.value.status == 422


def test_a_misspelt_key_is_kept_and_refused_by_the_controller(berlin: RealCluster, tmp_path: Path) -> None:
    path = berlin.api.named("modelrollouts", api=API)
    berlin.api.create(path, rollout(gates={"max_p50_ration": 2}))
    try:
        store = ResourceStore(berlin.as_service_account("edgewright-controller"), tmp_path, "test")
        document = next(d for d in store.documents() if d["metadata"]["name"] == "checked")
        with pytest.raises(ConfigError, match=r"gates\.max_p50_ration: no such key"):
            store.spec(document)
        store.refuse("checked", "gates.max_p50_ration: no such key", 0.0)
        accepted = status_of(berlin.api.get(f"{path}/checked")).conditions[0]
        assert (accepted.type, accepted.status, accepted.reason) == ("Accepted", "False", "Refused")
    finally:
        berlin.api.delete(f"{path}/checked")


def test_the_controller_may_do_what_it_needs_and_the_agent_nothing(berlin: RealCluster) -> None:
    mine = berlin.api.namespace
    asked = [
        ("get", "", "secrets", mine), ("list", "", "secrets", mine), ("list", "", "configmaps", mine),
        ("delete", "", "pods", mine), ("get", "", "pods", mine), ("list", "", "pods", "kube-system"),
        ("create", "", "pods", mine), ("create", "", "pods/exec", mine), ("create", "", "pods/eviction", mine),
        ("list", "", "nodes", ""), ("get", "", "nodes", ""), ("patch", "", "nodes", ""),
        ("list", "", "pods", mine), ("list", "apps", "daemonsets", mine),
        ("get", "edgewright.dev", "modelrollouts", mine), ("list", "edgewright.dev", "modelrollouts", mine),
        ("create", "edgewright.dev", "modelrollouts", mine), ("update", "edgewright.dev", "modelrollouts", mine),
        ("delete", "edgewright.dev", "modelrollouts", mine), ("list", "edgewright.dev", "modelrollouts", ""),
        ("update", "edgewright.dev", "modelrollouts/status", mine),
        ("create", "", "configmaps", mine), ("get", "", "configmaps", mine), ("update", "", "configmaps", mine),
        ("create", "", "configmaps", "kube-system"),
        ("create", "coordination.k8s.io", "leases", mine), ("list", "coordination.k8s.io", "leases", mine),
        ("update", "coordination.k8s.io", "leases", mine), ("create", "coordination.k8s.io", "leases", ""),
        ("*", "*", "*", ""), ("impersonate", "", "users", ""),
    ]  # fmt: skip
    allowed = {
        ("list", "", "nodes", ""), ("list", "", "pods", mine),
        ("get", "edgewright.dev", "modelrollouts", mine), ("list", "edgewright.dev", "modelrollouts", mine),
        ("update", "edgewright.dev", "modelrollouts/status", mine),
        ("create", "coordination.k8s.io", "leases", mine), ("create", "", "configmaps", mine),
    }  # fmt: skip
    controller, agent = (berlin.as_service_account(f"edgewright-{name}") for name in ("controller", "agent"))
    assert {question for question in asked if may(controller, *question)} == allowed
    assert not [question for question in asked if may(agent, *question)]
    lease = ("update", "coordination.k8s.io", "leases", mine)
    assert may(controller, *lease, name="edgewright-controller")
    assert not may(controller, *lease, name="another")


def test_clusters_and_nodes_are_listed_and_one_that_is_down_is_named(
    clusters: dict[str, RealCluster],
) -> None:
    options = [x for c in clusters.values() for x in ("--kubeconfig", str(c.config), "--context", c.name)]
    runner = CliRunner()
    listed = runner.invoke(fleet_command, ["nodes", *options, "--json"])
    nodes = json.loads(listed.stdout)
    assert len(nodes) == 12 and {n["state"] for n in nodes} == {"available"}
    assert {n["device"] for n in nodes} >= {"berlin.b0", "hamburg.h5"}
    clusters["hamburg"].kill("kube-apiserver")
    try:
        result = runner.invoke(fleet_command, ["clusters", *options, "--json"], standalone_mode=False)
        berlin, hamburg = json.loads(result.stdout)
        assert (berlin["answers"], berlin["available"], hamburg["answers"]) == (True, 6, False)
        assert result.return_value == 3
    finally:
        clusters["hamburg"].start("kube-apiserver")
