"""Two real clusters with twelve hollow nodes, for the tests of a session; agents are simulated beside them.

Containers do not run in hollow nodes, so that the agent of each node's pod is a `SimulatedDevice` out here: the
pod is real to Kubernetes, the twin is real to the broker.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from conftest import free_port
from edgewright.mqtt import BrokerSettings
from edgewright_fleet.broker import embedded_broker
from edgewright_fleet.retraining.kubernetes.backend import KubernetesBackend
from edgewright_fleet.targets.kubernetes.target import look_at
from fleet.kubernetes.cluster_binaries import CannotBuildError, ensure_binaries
from fleet.kubernetes.real_cluster import NODES, RealCluster, hosted, install, until
from fleet.kubernetes.submitted_runs import submitter

START_S = 240.0


@pytest.fixture(scope="session")
def clusters(
    tmp_path_factory: pytest.TempPathFactory, fleet_broker: BrokerSettings
) -> Iterator[dict[str, RealCluster]]:
    """Both clusters, with Edgewright installed and an agent's pod running on each node."""
    try:
        binaries = ensure_binaries()
    except CannotBuildError as error:
        pytest.skip(str(error))
    can = shutil.which("unshare") and shutil.which("openssl")
    if (
        not can
        or subprocess.run(["unshare", "--net", "--pid", "--fork", "true"], capture_output=True).returncode
    ):
        pytest.skip("a real cluster needs unshare and openssl, and the right to make namespaces")
    with ExitStack() as stack:
        on_their_way = [
            stack.enter_context(hosted(name, tmp_path_factory.mktemp(name), binaries)) for name in NODES
        ]
        running = {cluster.name: cluster for cluster in [wait() for wait in on_their_way]}
        for cluster in running.values():
            install(cluster, fleet_broker)
        for cluster in running.values():
            until(lambda cluster=cluster: all(n.available for n in look_at(cluster.api).nodes), START_S)
        yield running


@pytest.fixture(scope="session")
def fleet_broker() -> Iterator[BrokerSettings]:
    with embedded_broker(free_port()) as settings:
        yield settings


@pytest.fixture
def berlin(clusters: dict[str, RealCluster]) -> RealCluster:
    return clusters["berlin"]


@pytest.fixture
def backend(berlin: RealCluster) -> Iterator[KubernetesBackend]:
    yield submitter(berlin)
    label = "edgewright.dev/training-run"
    for config in berlin.api.get(berlin.api.named("configmaps"), labelSelector=label)["items"]:
        berlin.api.delete(berlin.api.named("configmaps", config["metadata"]["name"]))
    until(lambda: not berlin.api.get(berlin.api.named("pods"), labelSelector=label)["items"], 180)
