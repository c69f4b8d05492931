"""Kubeflow's TrainJob in a real cluster, by a CustomResourceDefinition with the schema of Kubeflow's own models.

No Trainer runs: what it would write into a TrainJob's status is written by the test.
"""

from __future__ import annotations

from typing import Any

import kubeflow_trainer_api.models as trainer
import pytest

from edgewright.errors import ClusterError
from edgewright_fleet.retraining.kubernetes.backend import KubernetesBackend
from edgewright_fleet.retraining.kubernetes.objects import job_objects
from edgewright_fleet.targets.kubernetes.install import path_of
from edgewright_fleet.targets.kubernetes.schema import structural
from fleet.kubernetes.real_cluster import RealCluster, until
from fleet.kubernetes.submitted_runs import SETTINGS, job, submitter

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
TRAINJOB = SETTINGS.model_copy(update={"api": "trainjob"})


def test_a_train_job_needs_kubeflow_trainer(berlin: RealCluster, backend: KubernetesBackend) -> None:
    with pytest.raises(ClusterError, match="has no TrainJob: Kubeflow Trainer is not installed"):
        submitter(berlin, TRAINJOB).submit(job("kubeflow"))


def test_a_train_job_is_taken_by_kubeflows_own_schema_and_its_conditions_are_read(
    berlin: RealCluster, backend: KubernetesBackend
) -> None:
    kinds = [
        definition("TrainJob", trainer.TrainerV1alpha1TrainJobSpec),
        definition("TrainingRuntime", trainer.TrainerV1alpha1TrainingRuntimeSpec),
    ]
    for kind in kinds:
        berlin.api.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", kind)
    try:
        run, kubeflow = job("kubeflow", nodes=2), submitter(berlin, TRAINJOB)
        path = berlin.api.named("trainjobs", run.name, api="trainer.kubeflow.org/v1alpha1")
        for plural in ("trainjobs", "trainingruntimes"):
            until(lambda plural=plural: _served(berlin, plural))
        kubeflow.submit(run)
        kubeflow.submit(run)
        assert kubeflow.status(run).state == "queued"
        # As an operator does with kubectl; of a Job, a server of 1.20 would drop the field.
        berlin.api.patch(path, {"spec": {"suspend": True}})
        assert kubeflow.status(run).state == "suspended"
        kubeflow.resume(run)
        assert berlin.api.get(path)["spec"]["suspend"] is False
        assert kubeflow.status(run).state == "queued"
        for condition, state in (("Complete", "succeeded"), ("Failed", "failed")):
            one = {"type": condition, "status": "True", "reason": "Seen", "message": "m"}
            berlin.api.patch(f"{path}/status", {"status": {"conditions": [one]}})
            assert kubeflow.status(run).state == state
        assert kubeflow.status(run).why == "Seen: m"
        kubeflow.resume(run)
        assert kubeflow.status(run).state == "queued"
        wrong = job_objects(run, TRAINJOB)[-1]
        wrong["spec"]["trainer"]["numNodes"] = "two"
        with pytest.raises(ClusterError, match=r"spec\.trainer\.numNodes"):
            berlin.api.create(path.rsplit("/", 1)[0] + "?dryRun=All", wrong | {"metadata": {"name": "wrong"}})
    finally:
        for kind in kinds:
            berlin.api.delete(path_of(kind))


def _served(cluster: RealCluster, plural: str) -> bool:
    try:
        return bool(cluster.api.get(cluster.api.named(plural, api="trainer.kubeflow.org/v1alpha1")))
    except ClusterError:
        return False


def with_amounts(node: Any) -> Any:
    """The schema with "number or text" where the models, which are generated, have an object that wraps one."""
    if isinstance(node, list):
        return [with_amounts(one) for one in node]
    if not isinstance(node, dict):
        return node
    if "actual_instance" in node.get("properties", {}):
        return {"x-kubernetes-int-or-string": True}
    return {key: with_amounts(value) for key, value in node.items()}


def definition(kind: str, spec: Any) -> dict[str, Any]:
    """A CustomResourceDefinition whose specification has the schema of Kubeflow's own models."""
    plural, group = f"{kind.lower()}s", "trainer.kubeflow.org"
    schema = {
        "type": "object",
        "properties": {
            "spec": with_amounts(structural(spec)),
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
    }
    version = {
        "name": "v1alpha1", "served": True, "storage": True, "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": schema},
    }  # fmt: skip
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{group}",
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
        },
        "spec": {
            "group": group, "scope": "Namespaced", "versions": [version],
            "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()},
        },
    }  # fmt: skip
