"""Training runs in a real cluster. Its API server is 1.20: no Indexed Job, no failure policy, no suspend.

A run on one node goes the whole way. What several nodes need is refused with a word; their pods, whose objects the
test makes itself, are real to the Job controller. Containers do not run in hollow nodes, so that a pod's end is
written into its status, as a kubelet would.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from edgewright.errors import ClusterError
from edgewright_fleet.retraining.kubernetes.backend import KubernetesBackend
from edgewright_fleet.retraining.kubernetes.objects import job_objects
from edgewright_fleet.retraining.kubernetes.rights import SUBMITTER
from edgewright_fleet.targets.kubernetes.install import path_of
from fleet.kubernetes.real_cluster import RealCluster, may, until
from fleet.kubernetes.submitted_runs import SETTINGS, end, job, pods, running_pod, submitter

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def test_a_run_goes_from_submission_to_its_end_with_the_rights_of_a_submitter(
    berlin: RealCluster, backend: KubernetesBackend
) -> None:
    run = job("whole-way")
    backend.submit(run)
    backend.submit(run)  # which changes nothing
    until(lambda: backend.status(run).state == "running")
    pod = running_pod(berlin, run)
    assert pod["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"]
    end(berlin, pod, 0)
    until(lambda: backend.status(run).state == "succeeded")
    backend.submit(run)
    assert len(pods(berlin, run)) == 1
    backend.resume(run)
    assert len(pods(berlin, run)) == 1
    backend.clean_up(run)
    until(lambda: not pods(berlin, run))
    with pytest.raises(ClusterError, match="run whole-way: was never submitted"):
        backend.status(run)


def test_a_pod_that_ends_is_replaced_until_the_retries_are_used_up_and_the_status_says_why(
    berlin: RealCluster, backend: KubernetesBackend
) -> None:
    run = job("fails", max_restarts=1)
    backend.submit(run)
    first = running_pod(berlin, run)
    end(berlin, first, 137)
    until(lambda: backend.status(run).restarts == 1)
    second = running_pod(berlin, run, but=first["metadata"]["name"])
    status = until(lambda: (s := backend.status(run)).state == "running" and s)
    assert f"replaced pod {first['metadata']['name']}" in status.why and "exit code 137" in status.why
    with pytest.raises(ClusterError, match="run fails: has not ended"):
        backend.clean_up(run)
    end(berlin, second, 1)
    status = until(lambda: (s := backend.status(run)).state == "failed" and s, 120)
    assert status.why.startswith("BackoffLimitExceeded: pod fails-") and "exit code 1" in status.why
    with pytest.raises(ClusterError, match="run fails: failed: BackoffLimitExceeded"):
        backend.submit(run)
    backend.resume(run)
    running_pod(berlin, run, but=second["metadata"]["name"])
    assert until(lambda: (s := backend.status(run)).state == "running" and s).restarts == 0


def test_a_run_is_cancelled_says_so_and_is_resumed(berlin: RealCluster, backend: KubernetesBackend) -> None:
    run = job("cancelled")
    backend.submit(run)
    before = running_pod(berlin, run)["metadata"]["name"]
    backend.cancel(run)
    backend.cancel(run)
    until(lambda: (s := backend.status(run)).state == "cancelled" and s.why == "on request")
    until(lambda: not pods(berlin, run))
    with pytest.raises(ClusterError, match="run cancelled: cancelled: on request; resume it"):
        backend.submit(run)
    backend.resume(run)
    backend.resume(run)
    running_pod(berlin, run, but=before)
    until(lambda: backend.status(run).state == "running")


def test_a_pod_that_is_evicted_and_one_whose_node_is_lost_are_replaced(
    berlin: RealCluster, backend: KubernetesBackend
) -> None:
    run = job("lost")
    backend.submit(run)
    pod = running_pod(berlin, run)
    name = pod["metadata"]["name"]
    # As a kubelet under pressure does. One in a hollow node lets containers that it stops end well.
    said = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}
    berlin.api.patch(f"{berlin.api.named('pods', name)}/status", {"status": said})
    pod = running_pod(berlin, run, but=name)
    status = until(lambda: (s := backend.status(run)).state == "running" and s)
    assert f"replaced pod {name} on" in status.why and "Evicted (The node was low" in status.why
    assert status.restarts == 1

    lost, name = pod["spec"]["nodeName"], pod["metadata"]["name"]
    berlin.kill(lost)
    try:
        berlin.api.delete(f"/api/v1/nodes/{lost}")  # as a cloud does whose machine is gone
        again = running_pod(berlin, run, but=name)
        assert again["spec"]["nodeName"] != lost
        until(lambda: backend.status(run).state == "running")
    finally:
        berlin.start(lost)
        assert _node(berlin, lost)


def _node(cluster: RealCluster, name: str) -> bool:
    """Whether a kubelet that was started again has registered its node and is ready."""

    def ready() -> bool:
        nodes = cluster.api.get("/api/v1/nodes")["items"]
        [conditions] = [
            n["status"].get("conditions", []) for n in nodes if n["metadata"]["name"] == name
        ] or [[]]
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    return bool(until(ready, 180))


def test_a_run_that_waits_says_for_what(berlin: RealCluster, backend: KubernetesBackend) -> None:
    settings = SETTINGS.model_copy(update={"spot": "gke"})
    run = job("waits")
    elsewhere = submitter(berlin, settings)
    elsewhere.submit(run)
    status = until(lambda: (s := elsewhere.status(run)).why.startswith("pod waits-") and s)
    assert status.state == "queued" and "nodes are available" in status.why


def test_what_another_run_or_anyone_else_has_made_is_left_alone(
    berlin: RealCluster, backend: KubernetesBackend
) -> None:
    backend.submit(job("taken"))
    with pytest.raises(ClusterError, match="run taken: another job of this name was submitted"):
        backend.submit(job("taken", seed=7))
    foreign = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "foreign"},
        "data": {"mine": "1"},
    }
    berlin.api.create(berlin.api.named("configmaps"), foreign)
    try:
        with pytest.raises(ClusterError, match="there is a ConfigMap 'foreign' that this run did not make"):
            backend.submit(job("foreign"))
    finally:
        berlin.api.delete(berlin.api.named("configmaps", "foreign"))
    _, theirs = job_objects(job("strangers"), SETTINGS)
    berlin.api.create(berlin.api.named("jobs", api="batch/v1"), theirs)
    try:
        with pytest.raises(ClusterError, match="there is a Job 'strangers' that this run did not make"):
            backend.submit(job("strangers"))
    finally:
        berlin.api.delete(path_of(theirs), propagationPolicy="Background")


def test_what_an_old_server_would_drop_without_a_word_is_refused_before_anything_is_made(
    berlin: RealCluster, backend: KubernetesBackend
) -> None:
    with pytest.raises(
        ClusterError, match=r"cluster berlin: is v1\.20\.2: the pods of a run on several nodes"
    ):
        backend.submit(job("several", nodes=2))
    with pytest.raises(ClusterError, match=r"cluster berlin: is v1\.20\.2: a Job that waits in a queue"):
        submitter(berlin, SETTINGS.model_copy(update={"queue": "night"})).submit(job("several"))
    with pytest.raises(ClusterError, match="was never submitted"):
        backend.status(job("several"))


def test_the_server_takes_the_objects_and_drops_only_what_is_newer_than_it(berlin: RealCluster) -> None:
    settings = SETTINGS.model_copy(update={"queue": "night", "gpus": 2, "spot": "aks"})
    for document in job_objects(job("dry", nodes=2), settings):
        kept = berlin.api.create(path_of(document).rsplit("/", 1)[0] + "?dryRun=All", document)
        dropped = set(missing(document, kept))
        newer = {"completionMode", "podFailurePolicy", "podReplacementPolicy", "suspend"}
        assert dropped == ({f"spec.{name}" for name in newer} if document["kind"] == "Job" else set())


def missing(wanted: Any, kept: Any, path: str = "") -> Iterator[str]:
    """Where `kept` lacks what `wanted` has, or has it otherwise."""
    if isinstance(wanted, dict) and isinstance(kept, dict):
        for key, value in wanted.items():
            yield from missing(value, kept.get(key), f"{path}.{key}".lstrip("."))
    elif isinstance(wanted, list) and isinstance(kept, list) and len(wanted) == len(kept):
        for number, pair in enumerate(zip(wanted, kept, strict=True)):
            yield from missing(*pair, f"{path}[{number}]")
    elif wanted != kept:
        yield path


def test_two_pods_are_a_run_that_runs_once_both_do(berlin: RealCluster, backend: KubernetesBackend) -> None:
    run = job("both", nodes=2)
    for document in job_objects(run, SETTINGS):
        berlin.api.create(path_of(document).rsplit("/", 1)[0], document)
    until(lambda: backend.status(run).state == "running")
    both = pods(berlin, run)
    assert len(both) == 2
    for pod in both:
        end(berlin, pod, 0)
    until(lambda: backend.status(run).state == "succeeded")
    service = berlin.api.get(berlin.api.named("services", run.name))["spec"]
    assert service["clusterIP"] == "None" and service["publishNotReadyAddresses"]
    berlin.api.delete(berlin.api.named("jobs", run.name, api="batch/v1"), propagationPolicy="Background")
    berlin.api.delete(berlin.api.named("services", run.name))


def test_a_submitter_may_do_what_runs_need_and_nothing_else(
    berlin: RealCluster, backend: KubernetesBackend
) -> None:
    account, mine = berlin.as_service_account(SUBMITTER), berlin.api.namespace
    verbs = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
    kinds = [
        ("", "configmaps"), ("", "services"), ("", "pods"), ("", "pods/log"), ("", "pods/exec"),
        ("", "pods/eviction"), ("", "secrets"), ("", "serviceaccounts"), ("", "nodes"), ("batch", "jobs"),
        ("apps", "deployments"), ("trainer.kubeflow.org", "trainjobs"), ("rbac.authorization.k8s.io", "roles"),
    ]  # fmt: skip
    allowed = {
        (verb, kind) for verb in verbs for group, kind in kinds if may(account, verb, group, kind, mine)
    }
    assert allowed == {
        *((verb, "configmaps") for verb in ("create", "get", "patch", "delete")),
        *((verb, "services") for verb in ("create", "get", "patch")),
        *((verb, "jobs") for verb in ("create", "get", "delete", "patch")),
        ("list", "pods"), ("get", "pods/log"),
    }  # fmt: skip
    elsewhere = {
        (verb, kind) for verb in verbs for group, kind in kinds if may(account, verb, group, kind, "default")
    }
    assert not elsewhere


def test_a_cluster_that_is_gone_is_said_in_one_line(berlin: RealCluster, backend: KubernetesBackend) -> None:
    backend.submit(job("gone"))
    berlin.kill("kube-apiserver")
    try:
        for ask in (
            backend.submit,
            backend.status,
            backend.cancel,
            backend.resume,
            lambda run: list(backend.logs(run)),
        ):
            with pytest.raises(ClusterError, match="cluster berlin: does not answer at") as said:
                ask(job("gone"))
            assert "\n" not in str(said.value)
    finally:
        berlin.start("kube-apiserver")
    until(lambda: backend.status(job("gone")).state == "running")
