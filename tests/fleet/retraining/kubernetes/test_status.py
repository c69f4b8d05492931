"""What a run's Job and pods say, as objects that newer API servers than the test's write."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright_fleet.retraining.job import JobState, JobStatus
from edgewright_fleet.retraining.kubernetes.status import status_of


def run(
    *conditions: tuple[str, str], suspend: bool = False, queue: str = "", **metadata: Any
) -> dict[str, Any]:
    said = [{"type": kind, "status": "True", "reason": reason, "message": "m"} for kind, reason in conditions]
    labels = {"kueue.x-k8s.io/queue-name": queue} if queue else {}
    return {
        "metadata": {"name": "r", "labels": labels, **metadata},
        "spec": {"suspend": suspend},
        "status": {"conditions": said},
    }


def pod(
    name: str, phase: str, state: dict[str, Any] | None = None, index: int = 0, **status: Any
) -> dict[str, Any]:
    annotations = {"batch.kubernetes.io/job-completion-index": str(index)}
    containers = [{"name": "node", "state": state}] if state else []
    return {
        "metadata": {"name": name, "annotations": annotations, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"nodeName": "n1"},
        "status": {"phase": phase, "containerStatuses": containers, **status},
    }


def ended(code: int, reason: str = "Error", at: str = "2026-01-01T01:00:00Z") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "finishedAt": at}}


PREEMPTED = [
    {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "DeletionByTaintManager",
        "message": "the node is gone",
    }
]
NO_ROOM = [
    {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes are available.",
    }
]
NO_IMAGE = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}


@pytest.mark.parametrize(
    ("seen", "pods", "state", "why"),
    [
        (run(), [], "queued", "its pods are being made"),
        (run(), [pod("r-0", "Running"), pod("r-1", "Running")], "running", ""),
        (run(), [pod("r-0", "Running"), pod("r-1", "Pending")], "queued", "its pods are being made"),
        (run(), [pod("r-0", "Pending", conditions=NO_ROOM)], "queued", "pod r-0: 0/3 nodes are available."),
        (
            run(), [pod("r-0", "Pending", NO_IMAGE)], "queued",
            "pod r-0: ImagePullBackOff (Back-off pulling image)",
        ),
        (run(), [pod("r-0", "Running"), pod("r-1", "Succeeded", ended(0))], "running", ""),
        (
            run(), [pod("r-0", "Running"), pod("r-1", "Failed", ended(75), conditions=PREEMPTED)], "running",
            "replaced pod r-1 on n1: DeletionByTaintManager (the node is gone)",
        ),
        (run(("Suspended", "JobSuspended"), suspend=True), [], "suspended", "suspended in the cluster"),
        (run(suspend=True, queue="night"), [], "queued", "waits in Kueue's queue 'night'"),
        (
            run(deletionTimestamp="x"), [pod("r-0", "Running")], "running",
            "is being stopped: its ranks have their notice",
        ),
        (run(("SuccessCriteriaMet", "x"), ("Complete", "x")), [], "succeeded", ""),
        (
            run(("Failed", "PodFailurePolicy")),
            [
                pod("r-0", "Failed", ended(2, at="2026-01-01T02:00:00Z")),
                pod("r-1", "Failed", ended(137, "OOMKilled", at="2026-01-01T01:00:00Z")),
                pod("r-2", "Failed", ended(143, at="2026-01-01T03:00:00Z"), conditions=PREEMPTED),
            ],
            "failed", "PodFailurePolicy: pod r-0 on n1: exit code 2",
        ),
        (
            run(("Failed", "BackoffLimitExceeded")), [pod("r-0", "Failed", ended(137, "OOMKilled"))], "failed",
            "BackoffLimitExceeded: pod r-0 on n1: exit code 137 (OOMKilled)",
        ),
        (
            run(("Failed", "BackoffLimitExceeded")),
            [pod("r-0", "Failed", reason="Evicted", message="low on disk")],
            "failed", "BackoffLimitExceeded: pod r-0 on n1: Evicted (low on disk)",
        ),
        (run(("Failed", "DeadlineExceeded")), [], "failed", "DeadlineExceeded: m"),
    ],
)  # fmt: skip
def test_a_run_says_where_it_stands_and_why(
    seen: dict[str, Any], pods: list[dict[str, Any]], state: str, why: str
) -> None:
    status = status_of(seen, pods)
    assert (status.state, status.why) == (state, why)


def test_the_pods_that_were_replaced_are_restarts_and_the_one_that_ended_the_run_is_none() -> None:
    gone = [pod("r-0", "Failed", ended(137)), pod("r-1", "Failed", ended(75), conditions=PREEMPTED)]
    assert status_of(run(), [*gone, pod("r-2", "Running")]).restarts == 2
    assert status_of(run(("Failed", "BackoffLimitExceeded")), gone).restarts == 1


states = st.sampled_from(
    [None, {"running": {}}, {"waiting": {}}, NO_IMAGE, ended(0), ended(137, "OOMKilled")]
)
phases = st.sampled_from(["Pending", "Running", "Succeeded", "Failed", "Unknown"])
conditions = st.sampled_from([[], PREEMPTED, NO_ROOM])
some_pods = st.builds(
    lambda phase, state, said, name: pod(name, phase, state, conditions=said),
    phases, states, conditions, st.sampled_from(["r-0", "r-1"]),
)  # fmt: skip
some_runs = st.builds(
    lambda kinds, suspend, queue: run(*((kind, "x") for kind in kinds), suspend=suspend, queue=queue),
    st.sets(st.sampled_from(["Complete", "Failed", "Suspended", "FailureTarget"])), st.booleans(),
    st.sampled_from(["", "night"]),
)  # fmt: skip


@given(some_runs, st.lists(some_pods, max_size=4))
def test_whatever_a_cluster_says_is_one_state_and_one_line(
    seen: dict[str, Any], pods: list[dict[str, Any]]
) -> None:
    status = status_of(seen, pods)
    assert isinstance(status, JobStatus) and status.state in get_args(JobState) and "\n" not in status.why
    assert status_of(seen, pods[::-1]).state == status.state
