"""`KubernetesBackend`: training runs in a cluster, by the objects of `objects` and nothing that runs beside them.

Whatever is known of a run is in the cluster, so that any process may ask. A run is cancelled by deleting its Job,
which gives the ranks their notice, and resumed by making it anew. That is the same on every version, with Kueue
and Kubeflow, to which a Job's `suspend` belongs. The ConfigMap stays, and says how far the run had come.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from edgewright.contract import from_json, to_json
from edgewright.errors import ClusterError
from edgewright_fleet.retraining.job import ENDED, JobStatus, TrainingJob
from edgewright_fleet.retraining.kubernetes.logs import followed, log_lines, told_progress
from edgewright_fleet.retraining.kubernetes.objects import job_objects
from edgewright_fleet.retraining.kubernetes.pods import GRACE_S, RUN, object_name
from edgewright_fleet.retraining.kubernetes.settings import KubernetesSettings
from edgewright_fleet.retraining.kubernetes.status import status_of
from edgewright_fleet.retraining.kubernetes.train_job import API_VERSION
from edgewright_fleet.retraining.training.progress import figures
from edgewright_fleet.targets.kubernetes.api import CONFLICT, NOT_FOUND, Cluster, from_kubeconfig, in_cluster
from edgewright_fleet.targets.kubernetes.install import path_of

Json = dict[str, Any]
CANCELLED = "edgewright.dev/cancelled"
"""Annotation of a run's ConfigMap: where the run stood when it was cancelled, a `JobStatus`."""
NEEDED = {
    "completionMode": "the pods of a run on several nodes need an Indexed Job (Kubernetes 1.24)",
    "suspend": "a Job that waits in a queue must be suspended (Kubernetes 1.24)",
}
"""Fields that an old API server drops without a word, and that a run which has them cannot do without."""
AWAY_S = GRACE_S + 30.0
"""How long a Job that is deleted may take to go, on nodes that answer."""


def connect(settings: KubernetesSettings) -> Cluster:
    """The cluster of the settings: by kubeconfig, or inside a pod by its account. Raises `EdgewrightError`."""
    if (
        settings.context is None
        and "KUBERNETES_SERVICE_HOST" in os.environ
        and "KUBECONFIG" not in os.environ
    ):
        return in_cluster("this cluster", settings.namespace)
    named = [settings.context] if settings.context else []
    return from_kubeconfig([], named, settings.namespace)[0]


class KubernetesBackend:
    """Runs jobs in one namespace of one cluster."""

    def __init__(self, settings: KubernetesSettings, cluster: Cluster) -> None:
        self._settings, self._cluster = settings, cluster

    def submit(self, job: TrainingJob) -> None:
        """Make the objects of a run that are not there; nothing where it runs or has succeeded.

        Raises `ConfigError` where the pods would not see what the job names, `ClusterError` where another run or
        other objects have its name, where it ended otherwise and waits for `resume`, or the cluster is too old.
        """
        wanted, *others = job_objects(job, self._settings)
        self._check(others[-1])
        config = self._make(wanted)
        self._check_same(config, wanted)
        if CANCELLED not in (config["metadata"].get("annotations") or {}):
            self._make_owned(config, others)
        if (status := self.status(job)).state in ("cancelled", "failed"):
            raise ClusterError(f"{status.state}: {status.why}", where=f"run {job.name}", remedy="resume it")

    def status(self, job: TrainingJob) -> JobStatus:
        """Where the run stands. Raises `ClusterError` where it was never submitted."""
        config, run = self._config(job), self._run(job)
        if run is None:
            return _without_job(config)
        pods = self._pods(job)
        status = status_of(run, pods)
        told = figures(job) if job.folder.is_dir() else told_progress(self._cluster, pods)
        try:
            far = JobStatus.model_validate({**told, "state": status.state, "why": status.why})
        except ValidationError:  # a line of a function that prints like a launcher
            return status
        return far.model_copy(update={"restarts": status.restarts + far.restarts})

    def logs(self, job: TrainingJob, *, follow: bool = False) -> Iterator[str]:
        """Lines of all ranks, each after `[rank]`; with `follow` until the run ends. Raises `ClusterError`."""
        self._config(job)
        if not follow:
            yield from log_lines(self._cluster, self._pods(job))
            return

        def look() -> list[Json] | None:
            run, pods = self._run(job), self._pods(job)
            return None if run is None or status_of(run, pods).state in ENDED else pods

        yield from followed(self._cluster, look)

    def cancel(self, job: TrainingJob) -> None:
        """Delete the run's Job: its pods get SIGTERM, and `GRACE_S` for a checkpoint. Raises `ClusterError`."""
        config, run = self._config(job), self._run(job)
        if run is None:
            return
        status = self.status(job)
        if status.state in ENDED:
            return
        # First, so that whoever asks in between finds a Job that runs, and never a run without a word.
        note = status.model_copy(update={"state": "cancelled", "why": "on request"})
        self._cluster.patch(
            path_of(config), {"metadata": {"annotations": {CANCELLED: to_json(note).decode()}}}
        )
        self._delete_run(run)

    def resume(self, job: TrainingJob) -> None:
        """Start a run again that was cancelled, suspended or failed; one that runs is left alone.

        Settings and parameters may have changed: more memory is a reason to resume. Nothing is done where the run
        has succeeded. Raises `ClusterError` where it was never submitted, or its old pods do not go.
        """
        config, run = self._config(job), self._run(job)
        if run is not None:
            state = status_of(run, self._pods(job)).state
            if state == "suspended":
                self._cluster.patch(path_of(run), {"spec": {"suspend": False}})
                return
            if state != "failed" and not run["metadata"].get("deletionTimestamp"):
                return
            if state == "failed":
                self._delete_run(run)
            self._wait_until_gone(run)
        wanted, *others = job_objects(job, self._settings)
        self._check(others[-1])
        config = self._cluster.apply(path_of(config), wanted)
        self._make_owned(config, others, anew=True)
        self._cluster.patch(path_of(config), {"metadata": {"annotations": {CANCELLED: None}}})

    def clean_up(self, job: TrainingJob) -> None:
        """Delete what the cluster has of a run that has ended, not its folder. Raises `ClusterError`."""
        config = self._config(job)
        if self._run(job) is not None and self.status(job).state not in ENDED:
            raise ClusterError("has not ended", where=f"run {job.name}", remedy="cancel it first")
        self._cluster.delete(path_of(config), propagationPolicy="Background")

    def _check(self, run: Json) -> None:
        """Have the API server look at a Job without making it, or say that it has TrainJobs."""
        if run["kind"] == "TrainJob":
            if self._found(f"/apis/{API_VERSION}") is None:
                raise ClusterError(
                    "has no TrainJob: Kubeflow Trainer is not installed",
                    where=str(self._cluster), status=NOT_FOUND, remedy="install it, or leave out 'api: trainjob'",
                )  # fmt: skip
            return  # Trainer looks at it itself, and would miss its runtime
        collection = path_of(run).rsplit("/", 1)[0]
        try:
            kept = self._cluster.create(f"{collection}?dryRun=All", run)["spec"]
        except ClusterError as error:
            if error.status == CONFLICT:
                return  # it is there
            raise
        several = run["spec"].get("completions", 1) > 1
        for field, why in NEEDED.items():
            if field in run["spec"] and field not in kept and (several or field != "completionMode"):
                version = self._cluster.get("/version")["gitVersion"]
                raise ClusterError(f"is {version}: {why}", where=str(self._cluster))

    def _check_same(self, found: Json, wanted: Json) -> None:
        if RUN not in (found["metadata"].get("labels") or {}):
            raise self._taken(found)
        if found.get("data", {}).get("job.json") != wanted["data"]["job.json"]:
            raise ClusterError(
                "another job of this name was submitted", where=f"run {wanted['metadata']['name']}",
                status=CONFLICT, remedy="give this one another name, or clean the other up",
            )  # fmt: skip

    def _taken(self, found: Json) -> ClusterError:
        kind, metadata = found["kind"], found["metadata"]
        if metadata.get("deletionTimestamp"):
            problem, remedy = (
                f"the {kind} '{metadata['name']}' of an earlier run is being deleted",
                "try again",
            )
        else:
            problem = f"there is a {kind} '{metadata['name']}' that this run did not make"
            remedy = "give the run another name"
        return ClusterError(problem, where=str(self._cluster), status=CONFLICT, remedy=remedy)

    def _make(self, document: Json) -> Json:
        """Create an object, or give the one that is there."""
        try:
            return self._cluster.create(path_of(document).rsplit("/", 1)[0], document)
        except ClusterError as error:
            if error.status != CONFLICT:
                raise
        return self._cluster.get(path_of(document))

    def _make_owned(self, config: Json, others: list[Json], *, anew: bool = False) -> None:
        """Create what the ConfigMap owns; `anew`: what is beside the Job becomes what it is to be now."""
        owner = {
            "apiVersion": "v1", "kind": "ConfigMap", "name": config["metadata"]["name"],
            "uid": config["metadata"]["uid"],
        }  # fmt: skip
        *beside, run = [one | {"metadata": one["metadata"] | {"ownerReferences": [owner]}} for one in others]
        for document in (*beside, run):
            change = anew and document is not run
            made = self._cluster.apply(path_of(document), document) if change else self._make(document)
            uids = [one["uid"] for one in made["metadata"].get("ownerReferences") or ()]
            if owner["uid"] not in uids or made["metadata"].get("deletionTimestamp"):
                raise self._taken(made)

    def _config(self, job: TrainingJob) -> Json:
        found = self._found(self._cluster.named("configmaps", object_name(job)))
        if found is None or RUN not in (found["metadata"].get("labels") or {}):
            raise ClusterError("was never submitted", where=f"run {job.name}", status=NOT_FOUND)
        return found

    def _run(self, job: TrainingJob) -> Json | None:
        """The Job or TrainJob, where there is one."""
        api, plural = (API_VERSION, "trainjobs") if self._settings.api == "trainjob" else ("batch/v1", "jobs")
        return self._found(self._cluster.named(plural, object_name(job), api=api))

    def _found(self, path: str) -> Json | None:
        try:
            return self._cluster.get(path)
        except ClusterError as error:
            if error.status != NOT_FOUND:
                raise
            return None

    def _pods(self, job: TrainingJob) -> list[Json]:
        selector = f"{RUN}={object_name(job)}"
        return list(self._cluster.get(self._cluster.named("pods"), labelSelector=selector)["items"])

    def _delete_run(self, run: Json) -> None:
        try:
            # In the foreground: it is there, and a second one of its name cannot be, until the last pod is gone.
            self._cluster.delete(path_of(run), propagationPolicy="Foreground")
        except ClusterError as error:
            if error.status != NOT_FOUND:
                raise

    def _wait_until_gone(self, run: Json) -> None:
        end_s = time.monotonic() + AWAY_S
        while self._found(path_of(run)) is not None:
            if time.monotonic() > end_s:
                raise ClusterError(
                    f"its pods have not gone in {AWAY_S:g} s", where=f"run {run['metadata']['name']}",
                    remedy="delete those on a node that is lost (kubectl delete pod --force), and try again",
                )  # fmt: skip
            time.sleep(0.5)


def _without_job(config: Json) -> JobStatus:
    note = (config["metadata"].get("annotations") or {}).get(CANCELLED)
    if note:
        return from_json(JobStatus, note.encode(), where=f"annotation {CANCELLED}", error=ClusterError)
    why = "its Job is gone: deleted by hand, or by the cluster after ttl_s; the run's folder says how far it came"
    return JobStatus(state="cancelled", why=why)
