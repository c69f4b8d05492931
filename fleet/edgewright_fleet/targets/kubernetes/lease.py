"""`LeaderLease`: one controller acts and the others wait, by a Lease of coordination.k8s.io/v1.

The rule is client-go's (`tools/leaderelection`): a holder is taken for dead when its Lease has not changed
for its duration *by our own clock*, so that clocks may differ; and every change names the version that it
saw, so that of two that try the API server takes one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from edgewright.errors import ClusterError, RolloutError
from edgewright_fleet.targets.kubernetes.api import CONFLICT, NOT_FOUND, Cluster

Json = dict[str, Any]
LEASE = "edgewright-controller"
API = "coordination.k8s.io/v1"


class LeaderLease:
    """The right of `identity` to act in a cluster, for `duration_s` after each renewal."""

    def __init__(
        self, cluster: Cluster, identity: str, duration_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.identity, self.duration_s = identity, duration_s
        self._cluster, self._clock = cluster, clock
        self._observed: tuple[str, float] | None = None
        self._held_until = 0.0

    @property
    def left_s(self) -> float:
        """Seconds for which nobody else will act."""
        return self._held_until - self._clock()

    def hold(self) -> None:
        """Take it, or renew it when a third of it is over.

        Raises `RolloutError` while another has it, `ClusterError` where that is not known.
        """
        if self.left_s > self.duration_s * 2 / 3:
            return
        asked = self._clock()
        path = self._cluster.named("leases", LEASE, api=API)
        try:
            document = self._cluster.get(path)
        except ClusterError as error:
            if error.status != NOT_FOUND:
                raise
            document = None
        if document is not None and (left_s := self._others_s(document)) > 0:
            self._held_until = 0.0
            holder = document["spec"]["holderIdentity"]
            raise RolloutError(
                f"controller '{holder}' acts in {self._cluster}",
                remedy=f"if it died, wait for {left_s:.0f} s",
            )
        try:
            if document is None:
                collection = self._cluster.named("leases", api=API)
                self._cluster.create(collection, self._next({"metadata": {"name": LEASE}}))
            else:
                self._cluster.replace(path, self._next(document))
        except ClusterError as error:
            if error.status != CONFLICT:
                raise
            self._held_until = 0.0
            raise RolloutError(f"another controller took the lease in {self._cluster} just now") from None
        self._held_until = asked + self.duration_s

    def release(self) -> None:
        """Give it back, so that another need not wait; harmless where it is not ours."""
        self._held_until = 0.0
        path = self._cluster.named("leases", LEASE, api=API)
        document = self._cluster.get(path)
        if document["spec"].get("holderIdentity") == self.identity:
            self._cluster.replace(path, document | {"spec": {**document["spec"], "holderIdentity": ""}})

    def _others_s(self, document: Json) -> float:
        """Seconds that another holder's right still lasts, as far as we can tell; 0 where nobody else has it."""
        spec = document.get("spec", {})
        if spec.get("holderIdentity") in (None, "", self.identity):
            return 0.0
        version = document["metadata"]["resourceVersion"]
        if self._observed is None or self._observed[0] != version:
            self._observed = (version, self._clock())
        return max(0.0, self._observed[1] + float(spec.get("leaseDurationSeconds", 0)) - self._clock())

    def _next(self, document: Json) -> Json:
        had = document.get("spec", {})
        now = datetime.now(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")
        ours = had.get("holderIdentity") == self.identity
        spec = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": max(1, round(self.duration_s)),
            "acquireTime": had.get("acquireTime", now) if ours else now,
            "renewTime": now,
            "leaseTransitions": had.get("leaseTransitions", 0) + (not ours),
        }
        return document | {"spec": spec}
