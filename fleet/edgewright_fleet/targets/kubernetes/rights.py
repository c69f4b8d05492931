"""Who may do what in a cluster: service accounts and roles, each with what it needs and nothing else.

The controller may read nodes and the agents' pods, read rollouts and write their status, make pages of an audit
log, and hold one Lease; an agent may do nothing at all and gets no token.
"""

from __future__ import annotations

from typing import Any

from edgewright_fleet.targets.kubernetes import resource
from edgewright_fleet.targets.kubernetes.installation import (
    AGENT,
    CONTROLLER,
    Installation,
    labels_of,
    metadata_of,
)
from edgewright_fleet.targets.kubernetes.lease import LEASE

Json = dict[str, Any]
OPERATOR = "edgewright-operator"
"""A Role that nobody is bound to: what a person, or a hub, needs for every verb of `edgewright fleet rollout`."""


def rights(installation: Installation) -> list[Json]:
    """The accounts and roles of an installation."""
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
    operates = [
        rule(resource.GROUP, [resource.PLURAL], ["get", "list", "create", "patch"]),
        rule("", ["configmaps"], ["get"]),
        rule("coordination.k8s.io", ["leases"], ["get"]) | {"resourceNames": [LEASE]},
    ]
    cluster_wide = f"{CONTROLLER}-{namespace}"
    subjects = [{"kind": "ServiceAccount", "name": CONTROLLER, "namespace": namespace}]
    labels = {"labels": labels_of(CONTROLLER)}
    return [
        *(
            {
                "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata_of(installation, name, name),
                "automountServiceAccountToken": name == CONTROLLER,
            }
            for name in (CONTROLLER, AGENT)
        ),
        {
            "apiVersion": f"{api}/v1", "kind": "Role",
            "metadata": metadata_of(installation, CONTROLLER, CONTROLLER), "rules": rules,
        },
        *(
            {
                "apiVersion": f"{api}/v1", "kind": "Role",
                "metadata": metadata_of(installation, OPERATOR, OPERATOR), "rules": operates,
            }
            for _ in range(installation.with_controller)
        ),
        {
            "apiVersion": f"{api}/v1", "kind": "RoleBinding",
            "metadata": metadata_of(installation, CONTROLLER, CONTROLLER),
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
