"""Writes the manifests to a folder, or applies them to a cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from edgewright.durable_file import write_durably
from edgewright.errors import ClusterError
from edgewright_fleet.targets.kubernetes.api import NOT_FOUND, Cluster
from edgewright_fleet.targets.kubernetes.installation import Installation
from edgewright_fleet.targets.kubernetes.manifests import kustomization, render

Json = dict[str, Any]
_PLURALS = {
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
    "ConfigMap": "configmaps",
    "CustomResourceDefinition": "customresourcedefinitions",
    "DaemonSet": "daemonsets",
    "Deployment": "deployments",
    "Job": "jobs",
    "Namespace": "namespaces",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "Service": "services",
    "ServiceAccount": "serviceaccounts",
    "TrainJob": "trainjobs",
    "TrainingRuntime": "trainingruntimes",
}


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Writes a text of several lines as one."""


def _text(dumper: yaml.SafeDumper, text: str) -> Any:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def as_yaml(objects: list[Json]) -> str:
    """Objects as a YAML stream."""
    return str(yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False))


def write(installation: Installation, folder: Path) -> list[Path]:
    """Write the manifests and a kustomization over them. Raises `StorageError`."""
    files = render(installation)
    texts = {name: as_yaml(objects) for name, objects in files.items()}
    texts["kustomization.yaml"] = yaml.safe_dump(kustomization(files), sort_keys=False)
    for name, text in texts.items():
        write_durably(folder / name, text.encode())
    return [folder / name for name in texts]


def apply(installation: Installation, cluster: Cluster, on_applied: Callable[[str], None]) -> None:
    """Apply the manifests, so that doing it again changes nothing. Raises `ClusterError`."""
    for objects in render(installation).values():
        for document in objects:
            if document["kind"] == "PodDisruptionBudget" and not _has_policy_v1(cluster):
                document = document | {"apiVersion": "policy/v1beta1"}  # Kubernetes before 1.21
            cluster.apply(path_of(document), document)
            on_applied(f"{document['kind']} {document['metadata']['name']}")


def path_of(document: Json) -> str:
    """Where an API server has an object."""
    version, metadata = document["apiVersion"], document["metadata"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    place = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
    return f"{root}{place}/{_PLURALS[document['kind']]}/{metadata['name']}"


def _has_policy_v1(cluster: Cluster) -> bool:
    try:
        cluster.get("/apis/policy/v1")
    except ClusterError as error:
        if error.status != NOT_FOUND:
            raise
        return False
    return True
