"""The rights of whoever submits training runs: one namespace, and there no more than a run needs."""

from __future__ import annotations

from typing import Any

from edgewright_fleet.retraining.kubernetes.settings import KubernetesSettings
from edgewright_fleet.retraining.kubernetes.train_job import API_VERSION
from edgewright_fleet.targets.kubernetes.rights import rule

Json = dict[str, Any]
SUBMITTER = "edgewright-training"


def submitter_rights(settings: KubernetesSettings) -> list[Json]:
    """A service account, its Role and the binding; people and other accounts can be bound to the same Role."""
    api = "rbac.authorization.k8s.io"
    metadata = {
        "name": SUBMITTER,
        "namespace": settings.namespace,
        "labels": {"app.kubernetes.io/name": SUBMITTER, "app.kubernetes.io/part-of": "edgewright"},
    }
    kubeflow = API_VERSION.partition("/")[0]
    kind = [
        rule(kubeflow, ["trainjobs"], ["create", "get", "delete", "patch"]),
        rule(kubeflow, ["trainingruntimes"], ["create", "get", "patch"]),
    ]
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {
            "apiVersion": f"{api}/v1", "kind": "Role", "metadata": metadata,
            "rules": [
                # No name can be given beforehand: every run has its own.
                rule("", ["configmaps"], ["create", "get", "patch", "delete"]),
                rule("", ["services"], ["create", "get", "patch"]),
                rule("batch", ["jobs"], ["create", "get", "delete", "patch"]),
                *(kind if settings.api == "trainjob" else []),
                rule("", ["pods"], ["list"]),
                rule("", ["pods/log"], ["get"]),
            ],
        },
        {
            "apiVersion": f"{api}/v1", "kind": "RoleBinding", "metadata": metadata,
            "roleRef": {"apiGroup": api, "kind": "Role", "name": SUBMITTER},
            "subjects": [{"kind": "ServiceAccount", "name": SUBMITTER, "namespace": settings.namespace}],
        },
    ]  # fmt: skip
