"""`KubernetesSettings`: where in a cluster a training run is placed, and with what.

The run itself, its function, ranks and folders, is the `TrainingJob`; nothing of it is here. Object stores are
mounted by their CSI driver (S3, GCS, Azure Blob all have one) as a claim like any other volume, so that the
function sees files in every case.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, Field

from edgewright.contract import CONTRACT

Json = dict[str, Any]
Quantity: TypeAlias = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(m|[kMGTPE]|[KMGTPE]i)?$")]
"""An amount as Kubernetes writes it: `500m`, `4`, `16Gi`."""
OBJECT_NAME = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"
ObjectName: TypeAlias = Annotated[str, Field(pattern=OBJECT_NAME, max_length=253)]
LabelKey: TypeAlias = Annotated[
    str, Field(pattern=r"^([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$", max_length=317)
]
LabelValue: TypeAlias = Annotated[
    str, Field(pattern=r"^([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?$", max_length=63)
]
SpotOf: TypeAlias = Literal["gke", "eks", "aks", "karpenter"]

SPOT: dict[SpotOf, tuple[str, str]] = {
    # cloud.google.com/kubernetes-engine/docs/concepts/spot-vms; pods get 15 s of notice (Autopilot: 25 s)
    "gke": ("cloud.google.com/gke-spot", "true"),
    # docs.aws.amazon.com/eks/latest/userguide/managed-node-groups.html, "Capacity types"; 120 s
    "eks": ("eks.amazonaws.com/capacityType", "SPOT"),
    # learn.microsoft.com/azure/aks/spot-node-pool, which taints the nodes with the same pair; 30 s
    "aks": ("kubernetes.azure.com/scalesetpriority", "spot"),
    # karpenter.sh/docs/concepts/scheduling, "Well-Known Labels"; the notice is the cloud's
    "karpenter": ("karpenter.sh/capacity-type", "spot"),
}
"""The label of a spot node by who makes it, where that is written down, and the notice before the node is gone.
A taint, which AKS always sets and GKE in Autopilot or by choice, is the same pair with `NoSchedule`."""


class Toleration(BaseModel):
    """A taint that the pods bear; `value` None: whatever its value."""

    model_config = CONTRACT
    key: LabelKey
    value: LabelValue | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="None: any effect"
    )

    def document(self) -> Json:
        """As a pod's specification has it."""
        chosen: Json = {"operator": "Exists"} if self.value is None else {"value": self.value}
        return {"key": self.key, "operator": "Equal", **chosen} | (
            {"effect": self.effect} if self.effect else {}
        )


class KubernetesSettings(BaseModel):
    """Where the pods of a training run are placed, what they may use, and how long they may take."""

    model_config = CONTRACT
    context: str | None = Field(default=None, description="of the kubeconfig; None: the current one")
    namespace: ObjectName = "edgewright"
    image: Annotated[str, Field(min_length=1)] = Field(
        description="with edgewright[train,fleet] and what the training function imports"
    )
    claim: ObjectName = Field(
        description="PersistentVolumeClaim that every pod can write (ReadWriteMany where nodes > 1)"
    )
    mount: PurePosixPath = Field(
        default=PurePosixPath("/edgewright"),
        description="where pods see it; the run's folder, data and weights lie below",
    )
    api: Literal["job", "trainjob"] = Field(
        default="job", description="trainjob: Kubeflow Trainer's, where it is installed"
    )
    cpu: Quantity = "4"
    memory: Quantity = "16Gi"
    gpus: Annotated[int, Field(ge=0)] = Field(default=0, description="of each pod; one a process is usual")
    gpu_resource: LabelKey = "nvidia.com/gpu"
    shared_memory: Quantity = Field(
        default="2Gi", description="of /dev/shm, which data loaders and NCCL use; part of `memory`"
    )
    node_selector: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    spot: SpotOf | None = Field(default=None, description="run on spot nodes, as this provider labels them")
    queue: ObjectName | None = Field(default=None, description="Kueue's LocalQueue; the job waits there")
    priority_class: ObjectName | None = None
    service_account: ObjectName | None = Field(
        default=None, description="for the cloud's storage; its token is not mounted"
    )
    image_pull_secrets: tuple[ObjectName, ...] = ()
    user: Annotated[int, Field(ge=1)] = Field(
        default=65532, description="numeric id that the pods run as, and group of the volume's files"
    )
    rendezvous_s: Annotated[int, Field(ge=30)] = Field(
        default=1800, description="how long pods wait for one another, so that an autoscaler can make nodes"
    )
    active_deadline_s: Annotated[int, Field(gt=0)] = Field(
        default=7 * 86_400, description="after which the cluster ends the job"
    )
    ttl_s: Annotated[int, Field(ge=3600)] | None = Field(
        default=None, description="how long the cluster keeps a job that ended; None: until `clean_up`"
    )
