"""The controller as its Deployment runs it at a real API server: its service account, its Secret, its user."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from conftest import running_mosquitto
from edgewright_fleet.targets.kubernetes.broker_access import BrokerAccess
from edgewright_fleet.targets.kubernetes.installation import Installation
from edgewright_fleet.targets.kubernetes.manifests import render
from fleet.kubernetes.as_pod import lay, run_pod
from fleet.kubernetes.cluster_host import kubeconfig
from fleet.kubernetes.fleet_on_nodes import CONTROLLER, FleetOnNodes
from fleet.kubernetes.real_cluster import NAMESPACE, RealCluster, until
from fleet.kubernetes.test_broker_access import PASSWORD, kind_of, secret_of, settings_of, strict_broker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
USER = 65532


def test_the_deployed_controller_acts_by_its_service_account_and_reads_a_renewed_token(
    clusters: dict[str, RealCluster], berlin: RealCluster, registry: Path, tmp_path: Path
) -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs to be root, to mount")
    # A token that ends with this Secret, as a pod's ends with the pod.
    secrets = berlin.api.named("secrets")
    berlin.api.create(secrets, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "first-token"}})
    first = berlin.token(CONTROLLER, {"apiVersion": "v1", "kind": "Secret", "name": "first-token"})
    account = {"ca.crt": berlin.certificate.read_bytes(), "namespace": NAMESPACE.encode()}
    server = berlin.api.server.removeprefix("https://").rpartition(":")
    environment = {"KUBERNETES_SERVICE_HOST": server[0], "KUBERNETES_SERVICE_PORT": server[2]}
    hamburg = clusters["hamburg"]
    name_and_server = hamburg.name, hamburg.api.server
    other = kubeconfig(
        *name_and_server, hamburg.token(CONTROLLER), hamburg.certificate, embedded=True
    ).encode()
    with running_mosquitto(tmp_path, strict_broker(tmp_path, "agents", "fleet")) as at:
        agents, controller = (settings_of(tmp_path, user, at.port) for user in ("agents", "fleet"))
        fleet = FleetOnNodes(clusters, agents, registry)
        for device in ("berlin.b0", "berlin.b1", "hamburg.h0"):
            fleet.add(device)
        installation = Installation(
            fleet=fleet.name, cluster="berlin", image="i", profiles=("x86-64-gateway",), namespace=NAMESPACE,
            broker=BrokerAccess(agents, "kiosks-agents"),
            controller_broker=BrokerAccess(controller, "kiosks-fleet"), others=("hamburg",),
            others_secret="kiosks-clusters",
        )  # fmt: skip
        objects = render(installation)["controller.yaml"]
        config = {name: text.encode() for name, text in kind_of(objects, "ConfigMap")["data"].items()}
        volumes = {
            "config": lay(tmp_path / "config", config, 0o644),
            "broker": lay(tmp_path / "secret", secret_of(tmp_path, "fleet"), 0o440, group=USER),
            "clusters": lay(tmp_path / "clusters", {"kubeconfig": other}, 0o440, group=USER),
            "registry": registry,
        }
        token = {"token": first.encode(), **account}
        mounted = lay(tmp_path / "account", token, 0o600, group=USER, owner=USER)
        log = tmp_path / "controller.log"
        pod = kind_of(objects, "Deployment")["spec"]["template"]["spec"]
        process = run_pod(pod, volumes, environment, log, mounted)
        try:
            status = fleet.ended(fleet.roll_out(waves=[1, "rest"]))
            assert status.phase == "succeeded", log.read_text()
            assert fleet.running(fleet.new) == sorted(fleet.devices)

            (mounted / "..data" / "token").write_text(berlin.token(CONTROLLER))
            berlin.api.delete(f"{secrets}/first-token")
            # The client looks at the file once a minute.
            name = fleet.roll_out(release="net:1.0.0", waves=["rest"])
            status = fleet.ended(name, 240)
            assert status.phase == "succeeded", log.read_text()
            assert fleet.running(fleet.old) == sorted(fleet.devices)
        finally:
            process.terminate()
            assert process.wait(30) == 0, log.read_text()
            fleet.close()
    said = log.read_text()
    assert PASSWORD not in said and first not in said
    until(
        lambda: (
            not berlin.api.get(berlin.api.named("leases", CONTROLLER, api="coordination.k8s.io/v1"))["spec"][
                "holderIdentity"
            ]
        )
    )
