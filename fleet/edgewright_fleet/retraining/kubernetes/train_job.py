"""A run as Kubeflow Trainer's `TrainJob`, for a cluster whose operators look at training through it.

The run brings a `TrainingRuntime` of its own, which holds the same Job that Edgewright would make, so that nothing
depends on the runtimes that a cluster happens to have, nor on the field for changing one, which was renamed from
`podTemplateOverrides` to `runtimePatches` in Trainer 2.2. No `torch` policy is asked for: it would set
torchrun's options a second time, in the environment.
"""

from __future__ import annotations

from typing import Any

from edgewright_fleet.retraining.job import TrainingJob
from edgewright_fleet.retraining.kubernetes.pods import metadata
from edgewright_fleet.retraining.kubernetes.settings import KubernetesSettings

Json = dict[str, Any]
API_VERSION = "trainer.kubeflow.org/v1alpha1"


def training_runtime(job: TrainingJob, settings: KubernetesSettings, spec: Json) -> Json:
    """The runtime that holds the Job's specification.

    Pods are called `<run>-node-0-<index>` in the domain `<run>`, JobSet's names for the first Job of the
    replicated job `node`; `spec` must have been made for them.
    """
    step = {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    ttl = {key: spec[key] for key in ("ttlSecondsAfterFinished",) if key in spec}
    # Trainer sets the number of pods, from numNodes, and what a JobSet keeps it keeps with all of its Jobs.
    inner = {key: value for key, value in spec.items() if key not in ("completions", "parallelism", *ttl)}
    return {
        "apiVersion": API_VERSION,
        "kind": "TrainingRuntime",
        "metadata": metadata(job, settings),
        "spec": {
            "mlPolicy": {"numNodes": job.nodes},
            "template": {
                "spec": {
                    **ttl,
                    "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
                    "replicatedJobs": [
                        {
                            "name": "node",
                            "replicas": 1,
                            "template": {"metadata": {"labels": step}, "spec": inner},
                        }
                    ],
                }
            },
        },
    }


def train_job(job: TrainingJob, settings: KubernetesSettings) -> Json:
    """The TrainJob that runs it."""
    made = metadata(job, settings, queued=True)
    return {
        "apiVersion": API_VERSION,
        "kind": "TrainJob",
        "metadata": made,
        "spec": {
            "runtimeRef": {
                "apiGroup": API_VERSION.partition("/")[0],
                "kind": "TrainingRuntime",
                "name": made["name"],
            },
            "trainer": {"numNodes": job.nodes},
            "suspend": settings.queue is not None,
        },
    }
