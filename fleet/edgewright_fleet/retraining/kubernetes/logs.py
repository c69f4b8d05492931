"""The pods' logs as one: what every rank printed, and where rank 0's launcher said that the training stands.

A launcher puts `[rank]` before what its ranks print; what it says itself gets `[-]`.
"""

from __future__ import annotations

import contextlib
import json
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from edgewright.errors import ClusterError
from edgewright_fleet.retraining.kubernetes.in_pod import TOLD
from edgewright_fleet.retraining.kubernetes.pods import CONTAINER
from edgewright_fleet.retraining.kubernetes.status import index_of
from edgewright_fleet.targets.kubernetes.api import NOT_FOUND, Cluster

Json = dict[str, Any]
NOT_STARTED = 400
"""What an API server answers while a container has no log yet."""
LOOK_S = 2.0
"""Between two looks for pods that have been replaced."""
LAST_WORDS_S = 10.0
"""Of silence, after which a run that is over has no more to say."""
TAIL_LINES = 500
"""Of a log, within which the launcher has told of the progress; it does so every few seconds."""


def log_lines(cluster: Cluster, pods: list[Json]) -> Iterator[str]:
    """What the pods have printed, node by node, the oldest pod of each first. Raises `ClusterError`."""
    for pod in sorted(pods, key=_order):
        yield from _lines(cluster, pod)


def followed(cluster: Cluster, look: Callable[[], list[Json] | None]) -> Iterator[str]:
    """What the pods print from now on and have printed, as it comes, those that are made meanwhile too.

    `look` gives the pods, or None once the run is over; whatever has been printed by then still comes. Raises
    `ClusterError`.
    """
    arrived: queue.SimpleQueue[str] = queue.SimpleQueue()
    readers: dict[str, threading.Thread] = {}
    printed: dict[str, int] = {}
    done: set[str] = set()

    def read(pod: Json, uid: str) -> None:
        # A stream that breaks, as a load balancer cuts one that is silent, is taken up again where it was.
        with contextlib.suppress(ClusterError):
            for number, line in enumerate(_lines(cluster, pod, follow="true")):
                if number >= printed.get(uid, 0):
                    printed[uid] = number + 1
                    arrived.put(line)
            if pod["status"].get("phase") in ("Succeeded", "Failed"):
                done.add(uid)
        readers.pop(uid)

    over, next_look_s, heard_s = False, 0.0, 0.0
    # The log of a node that is lost has no end.
    while not over or not arrived.empty() or (readers and time.monotonic() < heard_s + LAST_WORDS_S):
        if not over and time.monotonic() >= next_look_s:
            pods = look()
            over = pods is None
            for pod in pods or ():
                uid = pod["metadata"]["uid"]
                if uid not in done and uid not in readers:
                    readers[uid] = threading.Thread(target=read, args=(pod, uid), daemon=True)
                    readers[uid].start()
            next_look_s = time.monotonic() + LOOK_S
            heard_s = time.monotonic()
        with contextlib.suppress(queue.Empty):
            yield arrived.get(timeout=0.2)
            heard_s = time.monotonic()


def told_progress(cluster: Cluster, pods: list[Json]) -> Json:
    """The figures that the newest pod of node 0 printed last; empty where it printed none, or its log is gone."""
    mine = [pod for pod in sorted(pods, key=_order) if index_of(pod) == 0]
    for pod in reversed(mine):
        try:
            lines = list(_raw(cluster, pod, tailLines=str(TAIL_LINES)))
        except ClusterError:
            continue  # the node that kept it is gone
        for line in reversed(lines):
            if line.startswith(TOLD):
                try:
                    told = json.loads(line[len(TOLD) :])
                except ValueError:
                    continue  # the rest of it was not printed
                return told if isinstance(told, dict) else {}
    return {}


def _order(pod: Json) -> tuple[int, str]:
    return index_of(pod), str(pod["metadata"].get("creationTimestamp", ""))


def _lines(cluster: Cluster, pod: Json, **query: str) -> Iterator[str]:
    for line in _raw(cluster, pod, **query):
        if not line.startswith(TOLD):
            yield line if re.match(r"\[\d+\] ?", line) else f"[-] {line}"


def _raw(cluster: Cluster, pod: Json, **query: str) -> Iterator[str]:
    path = cluster.named("pods", f"{pod['metadata']['name']}/log")
    try:
        yield from cluster.lines(path, container=CONTAINER, **query)
    except ClusterError as error:
        if error.status not in (NOT_STARTED, NOT_FOUND):
            raise
