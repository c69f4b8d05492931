"""Training runs as a submitter makes them, and what a kubelet would say of their pods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgewright_fleet.retraining.job import TrainingJob
from edgewright_fleet.retraining.kubernetes.backend import KubernetesBackend
from edgewright_fleet.retraining.kubernetes.rights import SUBMITTER, submitter_rights
from edgewright_fleet.retraining.kubernetes.settings import KubernetesSettings
from edgewright_fleet.targets.kubernetes.install import path_of
from fleet.kubernetes.real_cluster import RealCluster, until

SETTINGS = KubernetesSettings(
    image="edgewright:test", claim="edgewright-registry", cpu="10m", memory="16Mi", shared_memory="8Mi"
)


def job(name: str, **given: Any) -> TrainingJob:
    return TrainingJob(name=name, function="shapes:train", folder=Path("/edgewright/runs") / name, **given)


def submitter(cluster: RealCluster, settings: KubernetesSettings = SETTINGS) -> KubernetesBackend:
    """With the rights that the manifest gives a submitter, and no others."""
    for document in submitter_rights(settings):
        cluster.api.apply(path_of(document), document)
    return KubernetesBackend(settings, cluster.as_service_account(SUBMITTER))


def pods(cluster: RealCluster, run: TrainingJob) -> list[dict[str, Any]]:
    """The run's pods that are not on their way out."""
    selector = f"edgewright.dev/training-run={run.name}"
    found = cluster.api.get(cluster.api.named("pods"), labelSelector=selector)["items"]
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def running_pod(cluster: RealCluster, run: TrainingJob, *, but: str = "") -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        running = [pod for pod in pods(cluster, run) if pod["status"]["phase"] == "Running"]
        return next((pod for pod in running if pod["metadata"]["name"] != but), None)

    return until(look, 180)  # type: ignore[no-any-return]


def end(cluster: RealCluster, pod: dict[str, Any], code: int) -> None:
    """Have a pod's container end, and the pod with it."""
    ended = {
        "exitCode": code,
        "reason": "Error" if code else "Completed",
        "finishedAt": "2026-01-01T00:00:00Z",
    }
    container = {"name": "node", "image": "i", "imageID": "i", "ready": False, "restartCount": 0}
    said = {
        "phase": "Failed" if code else "Succeeded",
        "containerStatuses": [container | {"state": {"terminated": ended}}],
    }
    path = f"{cluster.api.named('pods', pod['metadata']['name'])}/status"
    cluster.api.patch(path, {"status": said})
