"""The objects of a training run in a cluster, as plain JSON: `job_objects`, and `rendered` for a Git repository.

Pure. One pod is one node of the run. The pods are those of an Indexed Job, so that each keeps its index and its name
when it is replaced; a headless Service gives them names; a ConfigMap holds the job and is what stands for the run
while no pod does: it owns the others, so that deleting it deletes them all. What is done about a pod that failed is
decided by the launcher's exit code and by Kubernetes' own word on disruptions, before any retry is counted.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from edgewright.contract import to_json
from edgewright.errors import ConfigError
from edgewright_fleet.retraining.job import TrainingJob
from edgewright_fleet.retraining.kubernetes.settings import SPOT, KubernetesSettings
from edgewright_fleet.retraining.training.notice import PREEMPTED
from edgewright_fleet.targets.kubernetes.install import as_yaml
from edgewright_fleet.targets.kubernetes.manifests import locked_down

Json = dict[str, Any]
LAUNCHER = "edgewright_fleet.retraining.training.launch"
CONTAINER, PORT = "train", 29400
"""The container's name, and torchrun's own port for c10d."""
RUN = "edgewright.dev/training-run"
"""Label of everything that belongs to a run."""
QUEUE = "kueue.x-k8s.io/queue-name"
"""Label by which Kueue takes a job up (kueue.sigs.k8s.io/docs/tasks/run/jobs)."""
CONFIG, CODE = PurePosixPath("/etc/edgewright-job"), PurePosixPath("/etc/edgewright-code")
LOST_NODE_S = 60
"""Seconds until the pods of a node that fell silent are given up; Kubernetes' default is 300."""
CODE_BYTES = 700_000
"""A ConfigMap holds 1 MiB, in base64 where it is not text."""


def object_name(job: TrainingJob) -> str:
    """The objects' name: the run's, made fit for a host name (RFC 1123), with a digest where it had to be changed.

    Forty characters leave room in a pod's host name (63) for its index.
    """
    fit = re.sub(r"[^a-z0-9]+", "-", job.name.lower()).strip("-")[:40].strip("-")
    if fit == job.name and fit[0].isalpha():
        return fit
    return f"run-{fit[:28].strip('-')}-{hashlib.sha256(job.name.encode()).hexdigest()[:6]}".replace("--", "-")


def job_objects(job: TrainingJob, settings: KubernetesSettings) -> list[Json]:
    """The objects of a run, in the order in which they are made; the first owns the others.

    Reads the `.py` files of `job.code` where that folder is not on the volume. Raises `ConfigError` where the pods
    would not see what the job names.
    """
    code = code_files(job, settings)
    inside = job.model_copy(update={"code": Path(CODE)}) if code else job
    objects = [_config(inside, settings, code), _service(job, settings)]
    if settings.api == "trainjob":
        from edgewright_fleet.retraining.kubernetes.train_job import train_job, training_runtime

        spec = job_spec(job, settings, code, f"{object_name(job)}-node-0")
        return [*objects, training_runtime(job, settings, spec), train_job(job, settings)]
    return [*objects, _job(job, settings, job_spec(job, settings, code, object_name(job)))]


def rendered(job: TrainingJob, settings: KubernetesSettings) -> str:
    """The objects as YAML, for a repository that a cluster follows. Raises as `job_objects` does."""
    return as_yaml(job_objects(job, settings))


def code_files(job: TrainingJob, settings: KubernetesSettings) -> dict[str, str]:
    """The `.py` files below `job.code`, by path, where pods would not see them otherwise. Raises `ConfigError`."""
    for what, path in (("folder", job.folder), ("weights", job.weights)):
        if path is not None and not _on_volume(path, settings):
            raise ConfigError(
                f"{what} {path} is not below {settings.mount}, which is all that the pods see",
                where=f"job {job.name}",
                remedy=f"copy it to the volume of the claim '{settings.claim}' and name it as the pods see it",
            )
    if job.code is None or _on_volume(job.code, settings):
        return {}
    try:
        files = {
            path.relative_to(job.code).as_posix(): path.read_text(encoding="utf-8")
            for path in sorted(job.code.rglob("*.py"))
        }
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read ({error})", where=f"job {job.name}: code") from None
    size = sum(len(text.encode()) for text in files.values())
    if not files or size > CODE_BYTES:
        problem = f"{job.code} holds no .py file" if not files else f"{job.code} holds {size:,} bytes of .py files"
        raise ConfigError(
            problem,
            where=f"job {job.name}: code",
            remedy=f"at most {CODE_BYTES:,} go along with a job; put more into the image or on the volume",
        )
    return files


def metadata(job: TrainingJob, settings: KubernetesSettings) -> Json:
    """Name, namespace and labels, the same for every object of the run."""
    return {"name": object_name(job), "namespace": settings.namespace, "labels": _labels(job)}


def job_spec(
    job: TrainingJob, settings: KubernetesSettings, code: Mapping[str, str], hosts: str
) -> Json:
    """The specification of the Indexed Job whose pods have the host names `hosts`-0, `hosts`-1, …"""
    service = object_name(job)
    arguments = [
        *("--job", f"{CONFIG}/job.json"),
        *("--endpoint", f"{hosts}-0.{service}:{PORT}"),
        # By its name, not by its address: torchrun sorts nodes by it, so that rank 0 is in the pod of index 0.
        *("--address", f"{hosts}-$(JOB_COMPLETION_INDEX).{service}"),
        *("--node", "$(JOB_COMPLETION_INDEX)"),
        *("--wait-s", str(settings.rendezvous_s)),
        *("--notice-s", str(settings.notice_s)),
    ]
    return {
        "completionMode": "Indexed",
        "completions": job.nodes,
        "parallelism": job.nodes,
        # What no rule below matches, as a pod that ran out of memory. Ranks that die are started again inside their
        # pod, by torchrun.
        "backoffLimit": job.max_restarts,
        "podFailurePolicy": {
            "rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {"action": "Ignore", "onExitCodes": _exits(PREEMPTED)},
                {"action": "FailJob", "onExitCodes": _exits(1, 2)},
            ]
        },
        # Two pods of one index would write the same checkpoint.
        "podReplacementPolicy": "Failed",
        "activeDeadlineSeconds": settings.active_deadline_s,
        **({"ttlSecondsAfterFinished": settings.ttl_s} if settings.ttl_s is not None else {}),
        "template": {
            "metadata": {"labels": _labels(job)},
            "spec": _pod(job, settings, code, arguments, service),
        },
    }  # fmt: skip


def _exits(*codes: int) -> Json:
    return {"containerName": CONTAINER, "operator": "In", "values": sorted(codes)}


def _on_volume(path: Path, settings: KubernetesSettings) -> bool:
    return ".." not in path.parts and PurePosixPath(path).is_relative_to(settings.mount)


def _labels(job: TrainingJob) -> Json:
    return {
        "app.kubernetes.io/name": "edgewright-training",
        "app.kubernetes.io/part-of": "edgewright",
        RUN: object_name(job),
    }


def _config(job: TrainingJob, settings: KubernetesSettings, code: Mapping[str, str]) -> Json:
    # A key has no slash: files of a folder are put back in their place where they are mounted.
    data = {f"code-{number}": text for number, text in enumerate(code.values())}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(job, settings),
        "data": {"job.json": to_json(job).decode(), **data},
    }


def _service(job: TrainingJob, settings: KubernetesSettings) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(job, settings),
        "spec": {
            "clusterIP": "None",
            "selector": {RUN: object_name(job)},
            # Pods meet before any of them is ready.
            "publishNotReadyAddresses": True,
            "ports": [{"name": "rendezvous", "port": PORT, "targetPort": PORT, "protocol": "TCP"}],
        },
    }


def _job(job: TrainingJob, settings: KubernetesSettings, spec: Json) -> Json:
    made = metadata(job, settings)
    if settings.queue:
        made["labels"] = made["labels"] | {QUEUE: settings.queue}
        spec = {"suspend": True, **spec}  # until Kueue admits it
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": made, "spec": spec}


def _pod(
    job: TrainingJob, settings: KubernetesSettings, code: Mapping[str, str], arguments: list[str], service: str
) -> Json:
    amounts = {"cpu": settings.cpu, "memory": settings.memory}
    gpus = {settings.gpu_resource: str(settings.gpus)} if settings.gpus else {}
    container = {
        "name": CONTAINER,
        "image": settings.image,
        "command": ["python", "-m", LAUNCHER],
        "args": arguments,
        # The root file system is read-only, and libraries cache below the home folder.
        "env": [{"name": "HOME", "value": "/tmp"}],  # noqa: S108 - the pod's own
        "ports": [{"name": "rendezvous", "containerPort": PORT, "protocol": "TCP"}],
        # Memory is no more than was asked for, lest a node that runs out of it ends the run; processor time may be.
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
        "terminationGracePeriodSeconds": settings.notice_s,
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
    gpu = [{"key": settings.gpu_resource, "operator": "Exists", "effect": "NoSchedule"}] if settings.gpus else []
    spot: list[Json] = []
    if settings.spot:
        key, value = SPOT[settings.spot]
        spot = [{"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"}]
    return [*(toleration.document() for toleration in settings.tolerations), *gpu, *spot, *lost]
