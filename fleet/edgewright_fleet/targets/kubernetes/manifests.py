"""What Edgewright needs in a cluster, as plain objects; `edgewright fleet install` writes or applies them.

Pure. The agent is a DaemonSet for each hardware profile, on the nodes that carry its label. Its update
strategy is `OnDelete`: a new image waits until an operator deletes a pod, and models move without any
restart, through the twin. Namespaces are the unit: two fleets in a cluster have one each.
"""

from __future__ import annotations

import json
from typing import Any

from edgewright_fleet.targets.kubernetes import resource
from edgewright_fleet.targets.kubernetes.installation import (
    AGENT,
    CONTROLLER,
    Installation,
    labels_of,
    metadata_of,
)
from edgewright_fleet.targets.kubernetes.nodes import CLUSTER_LABEL, PROFILE_LABEL
from edgewright_fleet.targets.kubernetes.rights import rights

Json = dict[str, Any]
HOME, CLUSTERS = "/var/lib/edgewright", "/etc/edgewright-clusters"
PROBE_S = 30
"""Seconds between two questions whether an agent serves. Each starts an interpreter."""


def render(installation: Installation) -> dict[str, list[Json]]:
    """The objects by file name, in the order in which they are applied."""
    files = {
        "namespace.yaml": [_namespace(installation)],
        "crd.yaml": [resource.definition()],
        "rbac.yaml": rights(installation),
        "agents.yaml": [o for p in installation.profiles for o in _agent(installation, p)],
    }
    if installation.with_controller:
        files["controller.yaml"] = [
            *_controller(installation),
            _budget(installation, CONTROLLER, {"minAvailable": 1}),
        ]
    else:
        del files["crd.yaml"]
    return files


def kustomization(files: dict[str, list[Json]]) -> Json:
    """The kustomization over the files, for `kubectl apply -k`."""
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": list(files),
    }


def _namespace(installation: Installation) -> Json:
    # Agents mount a folder of their node, which the stricter levels of pod security forbid.
    level = {"pod-security.kubernetes.io/enforce": "privileged"}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": installation.namespace,
            "labels": {"app.kubernetes.io/part-of": "edgewright"} | level,
        },
    }


def _agent(installation: Installation, profile: str) -> list[Json]:
    name = f"{AGENT}-{profile}"
    metadata = metadata_of(installation, name, AGENT, **{PROFILE_LABEL: profile})
    matched = labels_of(AGENT) | {PROFILE_LABEL: profile}
    config, device = "/etc/edgewright/agent.toml", f"{installation.cluster}.$(NODE_NAME)"
    node_name = {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
    container = {
        "name": "agent",
        "image": installation.image,
        "args": ["agent", "run", "--config", config, "--device", device],
        "env": [node_name],
        # Through the agent's own socket, so no port is open for it; ready once it serves what it proved.
        "readinessProbe": {
            "exec": {"command": ["edgewright", "agent", "status", "--config", config, "--ready"]},
            "periodSeconds": PROBE_S, "timeoutSeconds": 10,
        },
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
        "securityContext": locked_down() | {"runAsUser": 0},
        "volumeMounts": [
            {"name": "config", "mountPath": "/etc/edgewright", "readOnly": True},
            {"name": "state", "mountPath": f"{HOME}/state"},
            {"name": "registry", "mountPath": f"{HOME}/registry", "readOnly": True},
            {"name": "scratch", "mountPath": "/tmp"},  # noqa: S108 - the pod's own
            *installation.broker.mounts(),
        ],
    }  # fmt: skip
    pod = {
        "serviceAccountName": AGENT,
        "automountServiceAccountToken": False,
        "nodeSelector": {PROFILE_LABEL: profile},
        "terminationGracePeriodSeconds": 30,
        "containers": [container],
        "volumes": [
            {"name": "config", "configMap": {"name": name}},
            {"name": "state", "hostPath": {"path": f"{HOME}/state", "type": "DirectoryOrCreate"}},
            _registry(installation),
            {"name": "scratch", "emptyDir": {}},
            *installation.broker.volumes(0o400),
        ],
    }
    return [
        {
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata,
            "data": {"agent.toml": _agent_toml(installation, profile)},
        },
        {
            "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": metadata,
            "spec": {
                "selector": {"matchLabels": matched},
                "updateStrategy": {"type": "OnDelete"},
                "template": {
                    "metadata": {"labels": matched | {CLUSTER_LABEL: installation.cluster}}, "spec": pod
                },
            },
        },
    ]  # fmt: skip


def _agent_toml(installation: Installation, profile: str) -> str:
    values = {"fleet": installation.fleet, "device": installation.cluster, "profile": profile}
    values |= {"state_dir": f"{HOME}/state", "registry": f"{HOME}/registry"}
    if installation.time_zone:
        values["time_zone"] = installation.time_zone
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    lines += ["", "[broker]", installation.broker.toml()]
    # By which a rollout can select the devices of a cluster.
    return "\n".join([*lines, "[labels]", f"cluster = {json.dumps(installation.cluster)}", ""])


def _budget(installation: Installation, name: str, limit: Json) -> Json:
    return {
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": metadata_of(installation, name, name),
        "spec": {"selector": {"matchLabels": {"app.kubernetes.io/name": name}}, **limit},
    }  # fmt: skip


def _controller(installation: Installation) -> list[Json]:
    broker = installation.controller_broker or installation.broker
    config, user = "/etc/edgewright", 65532
    mounts, volumes, more = broker.mounts(), broker.volumes(0o440), []
    if installation.others_secret is not None:
        mounts.append({"name": "clusters", "mountPath": CLUSTERS, "readOnly": True})
        secret = {"secretName": installation.others_secret, "defaultMode": 0o440}
        items = [{"key": "kubeconfig", "path": "kubeconfig"}]
        volumes.append({"name": "clusters", "secret": secret | {"items": items}})
        more = ["--in-cluster", "--kubeconfig", f"{CLUSTERS}/kubeconfig"]
        more += [word for context in installation.others for word in ("--context", context)]
    container = {
        "name": "controller",
        "image": installation.image,
        "args": [
            "fleet", "controller", "--fleet", installation.fleet, "--broker", f"{config}/broker.toml",
            "--namespace", installation.namespace, "--cluster", installation.cluster,
            "--registry", f"{HOME}/registry", *more,
        ],
        "resources": {"requests": {"cpu": "50m", "memory": "96Mi"}},
        "securityContext": locked_down() | {"runAsNonRoot": True, "runAsUser": user, "runAsGroup": user},
        "volumeMounts": [
            {"name": "config", "mountPath": config, "readOnly": True},
            {"name": "registry", "mountPath": f"{HOME}/registry", "readOnly": True},
            *mounts,
        ],
    }  # fmt: skip
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata_of(installation, CONTROLLER, CONTROLLER),
            "data": {"broker.toml": broker.toml()},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata_of(installation, CONTROLLER, CONTROLLER),
            "spec": {
                "replicas": 2,  # one acts, the other takes over when it dies
                "selector": {"matchLabels": labels_of(CONTROLLER)},
                "template": {
                    "metadata": {"labels": labels_of(CONTROLLER)},
                    "spec": {
                        "serviceAccountName": CONTROLLER,
                        # The Secret's files are root's, and readable to this group: the controller's own.
                        "securityContext": {"fsGroup": user, "fsGroupChangePolicy": "OnRootMismatch"},
                        "containers": [container],
                        "volumes": [
                            {"name": "config", "configMap": {"name": CONTROLLER}},
                            _registry(installation),
                            *volumes,
                        ],
                    },
                },
            },
        },
    ]


def _registry(installation: Installation) -> Json:
    claim = {"claimName": installation.registry_claim, "readOnly": True}
    return {"name": "registry", "persistentVolumeClaim": claim}


def locked_down() -> Json:
    """The security context of a container that needs no privilege and writes to volumes alone."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
