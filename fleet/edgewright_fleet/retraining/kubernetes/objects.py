"""The objects of a training run in a cluster, as plain JSON: `job_objects`, and `rendered` for a Git repository.

Pure, but for reading the function's code. A headless Service gives the pods names; a ConfigMap holds the job and
stands for the run while no pod does: it owns the others, so that deleting it deletes them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from edgewright.contract import to_json
from edgewright.errors import ConfigError
from edgewright_fleet.retraining.job import TrainingJob
from edgewright_fleet.retraining.kubernetes.pods import CODE, PORT, RUN, job_spec, metadata, object_name
from edgewright_fleet.retraining.kubernetes.settings import KubernetesSettings
from edgewright_fleet.retraining.kubernetes.train_job import train_job, training_runtime
from edgewright_fleet.targets.kubernetes.install import as_yaml

Json = dict[str, Any]
CODE_BYTES = 700_000
"""A ConfigMap holds 1 MiB, in base64 where it is not text."""


def job_objects(job: TrainingJob, settings: KubernetesSettings) -> list[Json]:
    """The objects of a run, in the order in which they are made; the first owns the others.

    Reads the `.py` files of `job.code` where that folder is not on the volume. Raises `ConfigError` where the pods
    would not see what the job names.
    """
    code = code_files(job, settings)
    inside = job.model_copy(update={"code": Path(CODE)}) if code else job
    config, name = _config(inside, settings, code), object_name(job)
    if settings.api == "trainjob":
        # The names that JobSet gives, and the Service that it makes.
        spec = job_spec(job, settings, code, f"{name}-node-0")
        return [config, training_runtime(job, settings, spec), train_job(job, settings)]
    service = [_service(job, settings)] if job.nodes > 1 else []
    return [config, *service, _job(job, settings, job_spec(job, settings, code, name))]


def rendered(job: TrainingJob, settings: KubernetesSettings) -> str:
    """The objects as YAML, for a repository that a cluster follows. Raises as `job_objects` does."""
    return as_yaml(job_objects(job, settings))


def code_files(job: TrainingJob, settings: KubernetesSettings) -> dict[str, str]:
    """The `.py` files below `job.code`, by path, where pods would not see them otherwise. Raises `ConfigError`."""
    data = [(f"data '{name}',", Path(at)) for name, at in job.data.items() if "://" not in at]
    for what, path in (("folder", job.folder), ("weights", job.weights), *data):
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
        problem = (
            f"{job.code} holds no .py file" if not files else f"{job.code} holds {size:,} bytes of .py files"
        )
        raise ConfigError(
            problem,
            where=f"job {job.name}: code",
            remedy=f"at most {CODE_BYTES:,} go along with a job; put more into the image or on the volume",
        )
    return files


def _on_volume(path: Path, settings: KubernetesSettings) -> bool:
    return ".." not in path.parts and PurePosixPath(path).is_relative_to(settings.mount)


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
    # Suspended until Kueue admits it.
    waiting = {"suspend": True} if settings.queue else {}
    made = metadata(job, settings, queued=True)
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": made, "spec": waiting | spec}
