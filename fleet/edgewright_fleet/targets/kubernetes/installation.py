"""`Installation`: what differs between two clusters that Edgewright is in, and what names its objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgewright_fleet.targets.kubernetes.broker_access import BrokerAccess

Json = dict[str, Any]
CONTROLLER, AGENT = "edgewright-controller", "edgewright-agent"


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


def metadata_of(installation: Installation, name: str, part: str, **labels: str) -> Json:
    """The metadata of an object in our namespace, which is part of `part`."""
    return {"name": name, "namespace": installation.namespace, "labels": labels_of(part) | labels}


def labels_of(name: str) -> dict[str, str]:
    """The labels by which an object is told to be ours."""
    return {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "edgewright"}
