"""What Edgewright needs in a cluster, as plain objects; `edgewright fleet install` writes or applies them.

Pure. The agent is a DaemonSet for each hardware profile, on the nodes that carry its label. Its update
strategy is `OnDelete`: a new image waits until an operator deletes a pod, and models move without any
restart, through the twin. The controller may read nodes and the agents' pods, read rollouts and write their
status, and hold one Lease; an agent may do nothing at all and gets no token. Namespaces are the unit: two
fleets in a cluster have one each.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from edgewright_fleet.targets.kubernetes import resource
from edgewright_fleet.targets.kubernetes.broker_access import BrokerAccess
from edgewright_fleet.targets.kubernetes.lease import LEASE
from edgewright_fleet.targets.kubernetes.nodes import CLUSTER_LABEL, PROFILE_LABEL

Json = dict[str, Any]
HOME, CLUSTERS = "/var/lib/edgewright", "/etc/edgewright-clusters"
CONTROLLER, AGENT = "edgewright-controller", "edgewright-agent"
PROBE_S = 30
"""Seconds between two questions whether an agent serves. Each starts an interpreter."""


@dataclass(frozen=True)
class Installation:
    """What differs between two clusters."""

    fleet: str
    cluster: str
    """The first part of its devices' names, so that two clusters may have nodes of one name."""
    image: str
    broker: BrokerAccess
    """Of the agents."""
    profiles: tuple[str, ...]
    namespace: str = "edgewright"
    registry_claim: str = "edgewright-registry"
    """A PersistentVolumeClaim with the OCI layout of releases, which every node can mount."""
    time_zone: str | None = None
    """Of its nodes, by which maintenance windows are meant. None: the rollout's."""
    controller_broker: BrokerAccess | None = None
    """Of the controller, which alone may say what devices should run. None: the agents' own."""
    others: tuple[str, ...] = ()
    """Contexts of further clusters, whose nodes are the fleet's too."""
    others_secret: str | None = None
    """The Secret whose key `kubeconfig` has those contexts."""
    with_controller: bool = True
    """False for a further cluster, whose agents a controller elsewhere looks after."""


def render(installation: Installation) -> dict[str, list[Json]]:
    """The objects by file name, in the order in which they are applied."""
    files = {
        "namespace.yaml": [_namespace(installation)],
        "crd.yaml": [resource.definition()],
        "rbac.yaml": _rbac(installation),
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


def _metadata(installation: Installation, name: str, part: str, **labels: str) -> Json:
    return {"name": name, "namespace": installation.namespace, "labels": _labels(part) | labels}


def _labels(name: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "edgewright"}


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


def _rbac(installation: Installation) -> list[Json]:
    namespace, api = installation.namespace, "rbac.authorization.k8s.io"
    rules = [rule("", ["pods"], ["list"])]
    if installation.with_controller:
        rules += [
            rule(resource.GROUP, [resource.PLURAL], ["get", "list"]),
            rule(resource.GROUP, [f"{resource.PLURAL}/status"], ["update"]),
            rule("", ["configmaps"], ["create"]),  # pages of an audit log; none is read or changed
            # A name cannot be asked for where an object does not exist yet.
            rule("coordination.k8s.io", ["leases"], ["create"]),
            rule("coordination.k8s.io", ["leases"], ["get", "update"]) | {"resourceNames": [LEASE]},
        ]
    cluster_wide = f"{CONTROLLER}-{namespace}"
    subjects = [{"kind": "ServiceAccount", "name": CONTROLLER, "namespace": namespace}]
    labels = {"labels": _labels(CONTROLLER)}
    return [
        *(
            {
                "apiVersion": "v1", "kind": "ServiceAccount", "metadata": _metadata(installation, name, name),
                "automountServiceAccountToken": name == CONTROLLER,
            }
            for name in (CONTROLLER, AGENT)
        ),
        {
            "apiVersion": f"{api}/v1", "kind": "Role", "metadata": _metadata(installation, CONTROLLER, CONTROLLER),
            "rules": rules,
        },
        {
            "apiVersion": f"{api}/v1", "kind": "RoleBinding",
            "metadata": _metadata(installation, CONTROLLER, CONTROLLER),
            "roleRef": {"apiGroup": api, "kind": "Role", "name": CONTROLLER}, "subjects": subjects,
        },
        {
            "apiVersion": f"{api}/v1", "kind": "ClusterRole", "metadata": {"name": cluster_wide, **labels},
            "rules": [rule("", ["nodes"], ["list"])],
        },
        {
            "apiVersion": f"{api}/v1", "kind": "ClusterRoleBinding", "metadata": {"name": cluster_wide, **labels},
            "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": cluster_wide}, "subjects": subjects,
        },
    ]  # fmt: skip


def rule(group: str, resources: list[str], verbs: list[str]) -> Json:
    """A rule of a Role."""
    return {"apiGroups": [group], "resources": resources, "verbs": verbs}


def _agent(installation: Installation, profile: str) -> list[Json]:
    name = f"{AGENT}-{profile}"
    metadata = _metadata(installation, name, AGENT, **{PROFILE_LABEL: profile})
    matched = _labels(AGENT) | {PROFILE_LABEL: profile}
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
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": _metadata(installation, name, name),
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
            "metadata": _metadata(installation, CONTROLLER, CONTROLLER),
            "data": {"broker.toml": broker.toml()},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": _metadata(installation, CONTROLLER, CONTROLLER),
            "spec": {
                "replicas": 2,  # one acts, the other takes over when it dies
                "selector": {"matchLabels": _labels(CONTROLLER)},
                "template": {
                    "metadata": {"labels": _labels(CONTROLLER)},
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
