"""Training runs in a real cluster. Its API server is 1.20: it knows no Indexed Job, no failure policy, no suspend.

A run on one node goes the whole way. What several nodes need is refused with a word; their pods, whose objects the
test makes itself, are real to the Job controller. Containers do not run in hollow nodes, so that a pod's end is
written into its status, as a kubelet would.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgewright.errors import ClusterError
from edgewright_fleet.retraining.job import TrainingJob
from edgewright_fleet.retraining.kubernetes.backend import KubernetesBackend
from edgewright_fleet.retraining.kubernetes.rights import SUBMITTER, submitter_rights
from edgewright_fleet.retraining.kubernetes.settings import KubernetesSettings
from edgewright_fleet.targets.kubernetes.install import path_of
from fleet.kubernetes.real_cluster import RealCluster, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
SETTINGS = KubernetesSettings(image="edgewright:test", claim="edgewright-registry", cpu="10m", memory="16Mi")


def job(name: str, **given: Any) -> TrainingJob:
    return TrainingJob(name=name, function="shapes:train", folder=Path("/edgewright/runs") / name, **given)


@pytest.fixture
def backend(berlin: RealCluster) -> KubernetesBackend:
    """With the rights that the manifest gives a submitter, and no others."""
    for document in submitter_rights(SETTINGS):
        berlin.api.apply(path_of(document), document)
    return KubernetesBackend(SETTINGS, berlin.as_service_account(SUBMITTER))


def pods(cluster: RealCluster, name: str) -> list[dict[str, Any]]:
    selector = f"edgewright.dev/training-run={name}"
    return list(cluster.api.get(cluster.api.named("pods"), labelSelector=selector)["items"])


def end(cluster: RealCluster, pod: dict[str, Any], code: int, **status: Any) -> None:
    """Have a pod's container end, for good: its kubelet does not know of it any more."""
    ended = {
        "exitCode": code,
        "reason": "Completed" if code == 0 else "Error",
        "finishedAt": "2026-01-01T00:00:00Z",
    }
    container = {"name": "node", "image": "i", "imageID": "i", "ready": False, "restartCount": 0}
    said = {
        "phase": "Succeeded" if code == 0 else "Failed",
        "containerStatuses": [container | {"state": {"terminated": ended}}],
        **status,
    }
    cluster.api.patch(f"{cluster.api.named('pods', pod['metadata']['name'])}/status", {"status": said})


def test_a_run_goes_from_submission_to_its_end_with_the_rights_of_a_submitter(
    berlin: RealCluster, backend: KubernetesBackend
) -> None:
    run = job("whole-way")
    backend.submit(run)
    backend.submit(run)  # which changes nothing
    until(lambda: backend.status(run).state == "running")
    [pod] = pods(berlin, run.name)
    assert pod["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"]
    end(berlin, pod, 0)
    until(lambda: backend.status(run).state == "succeeded")
    backend.submit(run)
    assert len(pods(berlin, run.name)) == 1
    with pytest.raises(ClusterError, match="has succeeded: there is nothing to resume"):
        backend.resume(run)
    backend.clean_up(run)
    until(lambda: not pods(berlin, run.name))
    with pytest.raises(ClusterError, match="run whole-way: was never submitted"):
        backend.status(run)
