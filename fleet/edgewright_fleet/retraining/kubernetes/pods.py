"""The pods of a training run: what each executes, where it may run, and what is done when one fails.

Pure. One pod is one node of the run. The pods are those of an Indexed Job, so that each keeps its index and its
name when it is replaced. What is done about a pod that failed is decided by the launcher's exit code and by
Kubernetes' own word on disruptions, before any retry is counted.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from edgewright_fleet.retraining.job import TrainingJob
from edgewright_fleet.retraining.kubernetes.settings import SPOT, KubernetesSettings
from edgewright_fleet.retraining.training.notice import NOTICE_S, PREEMPTED
from edgewright_fleet.targets.kubernetes.manifests import locked_down

Json = dict[str, Any]
MODULE = "edgewright_fleet.retraining.kubernetes.in_pod"
INDEX = "batch.kubernetes.io/job-completion-index"
"""Annotation of a pod: which node of the run it is."""
CONTAINER, PORT = "node", 29400
"""The container's name, which is the one that Kubeflow Trainer looks for, and torchrun's own port for c10d."""
RUN = "edgewright.dev/training-run"
"""Label of everything that belongs to a run."""
QUEUE = "kueue.x-k8s.io/queue-name"
"""Label by which Kueue takes a job up (kueue.sigs.k8s.io/docs/tasks/run/jobs)."""
CONFIG, CODE = PurePosixPath("/etc/edgewright-job"), PurePosixPath("/etc/edgewright-code")
GRACE_S = int(NOTICE_S) + 10
"""Between SIGTERM and SIGKILL: what the ranks take for a checkpoint at most, and the launcher's own end."""
LOST_NODE_S = 60
"""Seconds until the pods of a node that fell silent are given up; Kubernetes' default is 300."""


def object_name(job: TrainingJob) -> str:
    """The objects' name: the run's, made fit for a host name (RFC 1123), with a digest where it had to be changed.

    Forty characters leave room in a pod's host name (63) for its index.
    """
    fit = re.sub(r"[^a-z0-9]+", "-", job.name.lower()).strip("-")[:40].strip("-")
    if fit == job.name and fit[0].isalpha():
        return fit
    return f"run-{fit[:28].strip('-')}-{hashlib.sha256(job.name.encode()).hexdigest()[:6]}".replace("--", "-")


def metadata(job: TrainingJob, settings: KubernetesSettings, *, queued: bool = False) -> Json:
    """Name, namespace and labels of an object of the run; `queued`: the one that Kueue admits, if any."""
    queue = {QUEUE: settings.queue} if queued and settings.queue else {}
    return {"name": object_name(job), "namespace": settings.namespace, "labels": labels(job) | queue}


def job_spec(job: TrainingJob, settings: KubernetesSettings, code: Mapping[str, str], hosts: str) -> Json:
    """The specification of the Indexed Job whose pods have the host names `hosts`-0, `hosts`-1, …"""
    service = object_name(job)
    arguments = ["--job", f"{CONFIG}/job.json"]
    if job.nodes > 1:
        arguments += [
            *("--endpoint", f"{hosts}-0.{service}:{PORT}"),
            # By name, not by address: torchrun sorts nodes by it, so that rank 0 is in the pod of index 0.
            *("--address", f"{hosts}-$(JOB_COMPLETION_INDEX).{service}"),
            *("--node", "$(JOB_COMPLETION_INDEX)"),
            *("--wait-s", str(settings.rendezvous_s)),
        ]
    return {
        "completionMode": "Indexed",
        "completions": job.nodes,
        "parallelism": job.nodes,
        # For what no rule below matches, as a pod that ran out of memory. Ranks that die are started again by
        # torchrun, inside their pod.
        "backoffLimit": job.max_restarts,
        "podFailurePolicy": {
            "rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                _on_exit("Ignore", PREEMPTED),
                _on_exit("FailJob", 1, 2),
            ]
        },
        # Two pods of one index would write the same checkpoint.
        "podReplacementPolicy": "Failed",
        "activeDeadlineSeconds": settings.active_deadline_s,
        **({"ttlSecondsAfterFinished": settings.ttl_s} if settings.ttl_s is not None else {}),
        "template": {
            "metadata": {"labels": labels(job)},
            "spec": _pod(job, settings, code, arguments, service),
        },
    }  # fmt: skip


def _on_exit(action: str, *codes: int) -> Json:
    """A rule on exit codes; the empty list is what clients before 1.29 ask for, by mistake in their schema."""
    codes_in = {"containerName": CONTAINER, "operator": "In", "values": sorted(codes)}
    return {"action": action, "onExitCodes": codes_in, "onPodConditions": []}


def labels(job: TrainingJob) -> Json:
    """By which what belongs to the run is found."""
    return {
        "app.kubernetes.io/name": "edgewright-training",
        "app.kubernetes.io/part-of": "edgewright",
        RUN: object_name(job),
    }


def _pod(
    job: TrainingJob,
    settings: KubernetesSettings,
    code: Mapping[str, str],
    arguments: list[str],
    service: str,
) -> Json:
    amounts = {"cpu": settings.cpu, "memory": settings.memory}
    gpus = {settings.gpu_resource: str(settings.gpus)} if settings.gpus else {}
    container = {
        "name": CONTAINER,
        "image": settings.image,
        "command": ["python", "-m", MODULE],
        "args": arguments,
        # The root file system is read-only, and libraries cache below the home folder.
        "env": [{"name": "HOME", "value": "/tmp"}],  # noqa: S108 - the pod's own
        "ports": [{"name": "rendezvous", "containerPort": PORT, "protocol": "TCP"}],
        # No more memory than was asked for, lest a node that runs out of it ends the run; but any idle processor.
        "resources": {"requests": amounts | gpus, "limits": {"memory": settings.memory} | gpus},
        "securityContext": locked_down(),
        "volumeMounts": [
            {"name": "job", "mountPath": str(CONFIG), "readOnly": True},
            *([{"name": "code", "mountPath": str(CODE), "readOnly": True}] if code else []),
            {"name": "runs", "mountPath": str(settings.mount)},
            {"name": "scratch", "mountPath": "/tmp"},  # noqa: S108 - the pod's own
            {"name": "shared-memory", "mountPath": "/dev/shm"},  # noqa: S108
        ],
    }
    config = {"name": object_name(job)}
    paths = [{"key": f"code-{number}", "path": path} for number, path in enumerate(code)]
    memory = {"medium": "Memory", "sizeLimit": settings.shared_memory}
    optional = {
        "priorityClassName": settings.priority_class,
        "serviceAccountName": settings.service_account,
        "imagePullSecrets": [{"name": name} for name in settings.image_pull_secrets],
        "nodeSelector": _node_selector(settings),
    }
    return {
        "restartPolicy": "Never",  # which a failure policy needs
        "subdomain": service,
        "terminationGracePeriodSeconds": GRACE_S,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": settings.user,
            "runAsGroup": settings.user,
            "fsGroup": settings.user,
            "fsGroupChangePolicy": "OnRootMismatch",  # a volume of many checkpoints is not walked at each start
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **{key: value for key, value in optional.items() if value},
        "tolerations": _tolerations(settings),
        "containers": [container],
        "volumes": [
            {"name": "job", "configMap": config | {"items": [{"key": "job.json", "path": "job.json"}]}},
            *([{"name": "code", "configMap": config | {"items": paths}}] if code else []),
            {"name": "runs", "persistentVolumeClaim": {"claimName": settings.claim}},
            {"name": "scratch", "emptyDir": {}},
            {"name": "shared-memory", "emptyDir": memory},
        ],
    }


def _node_selector(settings: KubernetesSettings) -> Json:
    spot = dict([SPOT[settings.spot]]) if settings.spot else {}
    return {**settings.node_selector, **spot}


def _tolerations(settings: KubernetesSettings) -> list[Json]:
    lost = [
        {
            "key": f"node.kubernetes.io/{word}", "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": LOST_NODE_S,
        }
        for word in ("not-ready", "unreachable")
    ]  # fmt: skip
    gpu = (
        [{"key": settings.gpu_resource, "operator": "Exists", "effect": "NoSchedule"}]
        if settings.gpus
        else []
    )
    spot: list[Json] = []
    if settings.spot:
        key, value = SPOT[settings.spot]
        spot = [{"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"}]
    return [*(toleration.document() for toleration in settings.tolerations), *gpu, *spot, *lost]
