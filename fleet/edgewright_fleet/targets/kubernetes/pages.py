"""The part of an audit log that a ModelRollout has no room for: pages, each an immutable ConfigMap.

etcd takes objects of 1.5 MB, and a status holds the engine's state beside the decisions. So the oldest decisions
move out, a page at a time: what a page holds follows from the stored status alone, so that a controller which was
killed between the page and the status makes the very same page again. A page goes with its rollout.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

from edgewright.contract import from_mapping, to_json
from edgewright.errors import ClusterError, ConfigError
from edgewright_fleet.targets.kubernetes.api import CONFLICT, Cluster
from edgewright_fleet.targets.kubernetes.resource import API_VERSION, KIND, DecisionRecord, RolloutStatus

Json = dict[str, Any]
PAGE_BYTES = 100_000
"""Of a page; a status holds less than two. A decision that names a thousand devices is some 20 kB."""
KEY = "decisions.json"
FORBIDDEN = 403
log = logging.getLogger("edgewright.fleet")


def page_of(decisions: Sequence[DecisionRecord], page_bytes: int) -> int:
    """How many of the stored decisions, oldest first, are to move to a page now; 0 while there is room."""
    sizes = [len(to_json(decision)) for decision in decisions]
    if sum(sizes) <= 2 * page_bytes:
        return 0
    taken = count = 0
    for size in sizes:
        if taken + size > page_bytes:
            break
        taken, count = taken + size, count + 1
    return max(count, 1)


def turn_page(cluster: Cluster, document: Json, status: RolloutStatus, page_bytes: int) -> RolloutStatus:
    """The status with its oldest decisions on pages, which are made here, as far as it has too many."""
    while count := page_of(status.decisions, page_bytes):
        page = _page(document, status.pages + 1, status.decisions[:count])
        try:
            cluster.create(cluster.named("configmaps"), page)
        except ClusterError as error:
            if (
                error.status == FORBIDDEN
            ):  # installed before there were pages: the status keeps all, as it did
                log.warning("%s: %s", document["metadata"]["name"], error)
                break
            if error.status != CONFLICT:  # made before, by one that was killed
                raise
        status = status.model_copy(
            update={
                "decisions": status.decisions[count:],
                "earlier": status.earlier + count,
                "pages": status.pages + 1,
            }
        )
    return status


def earlier_decisions(cluster: Cluster, document: Json, status: RolloutStatus) -> list[DecisionRecord]:
    """The decisions that have moved to pages, oldest first; a line in place of a page that cannot be read."""
    found: list[DecisionRecord] = []
    for number in range(1, status.pages + 1):
        name = _name(document, number)
        try:
            data = json.loads(cluster.get(cluster.named("configmaps", name))["data"][KEY])
            found += [from_mapping(DecisionRecord, row, where=name) for row in data]
        except (ClusterError, ConfigError, KeyError, TypeError, ValueError) as error:
            told = f"(decisions of ConfigMap {name} cannot be read: {error})"
            after = found[-1] if found else None
            found.append(
                DecisionRecord(
                    at=after.at if after else "1970-01-01T00:00:00Z",
                    atSeconds=after.at_s if after else 0.0,
                    sentence=told,
                )
            )
    return found


def _name(document: Json, number: int) -> str:
    # With the object's own id: one of the same name may have been deleted just now, and its pages not yet.
    metadata = document["metadata"]
    return f"{metadata['name']}.decisions.{metadata['uid'][:8]}.{number}"


def _page(document: Json, number: int, decisions: Sequence[DecisionRecord]) -> Json:
    metadata = document["metadata"]
    owner = {"apiVersion": API_VERSION, "kind": KIND, "name": metadata["name"], "uid": metadata["uid"]}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": _name(document, number),
            "labels": {"app.kubernetes.io/part-of": "edgewright"},
            "ownerReferences": [owner],
        },
        "immutable": True,
        "data": {KEY: f"[{','.join(to_json(decision).decode() for decision in decisions)}]"},
    }
