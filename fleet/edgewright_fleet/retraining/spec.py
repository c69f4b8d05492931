"""`RetrainingSpec`: what is retrained when, on what, how, and what it takes to be released, as YAML.

Unknown keys are errors. Paths are relative to the file. The JSON Schema file in `schema/` is generated from here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, JsonValue, model_validator

from edgewright.artifact.comparison import Criteria
from edgewright.artifact.manifest import ModelFormat, Name, Precision
from edgewright.contract import CONTRACT
from edgewright.errors import ConfigError
from edgewright_fleet.retraining.job import Function
from edgewright_fleet.retraining.kubernetes.settings import OBJECT_NAME, KubernetesSettings, ObjectName
from edgewright_fleet.retraining.promotion.handover import read_template
from edgewright_fleet.retraining.triggers.policy import DriftRule, TriggerPolicy
from edgewright_fleet.spec_file import read_spec
from edgewright_fleet.targets.kubernetes.api import from_kubeconfig
from edgewright_profiles.catalog import load_profile


class Training(BaseModel):
    """The user's training function, and the ranks that it runs on."""

    model_config = CONTRACT
    function: Function = Field(description="`train(context)` in plain PyTorch, as module:function")
    parameters: dict[Name, JsonValue] = Field(default_factory=dict, description="what the function reads")
    backend: Literal["local", "kubernetes"] = "local"
    nodes: Annotated[int, Field(gt=0)] = 1
    processes_per_node: Annotated[int, Field(gt=0)] = 1
    max_restarts: Annotated[int, Field(ge=0)] = 3
    checkpoint_period_s: Annotated[float, Field(gt=0)] = 60.0
    seed: Annotated[int, Field(ge=0)] = 0
    kubernetes: KubernetesSettings | None = None

    @model_validator(mode="after")
    def _has_its_settings(self) -> Training:
        if (self.backend == "kubernetes") != (self.kubernetes is not None):
            raise ValueError("backend: kubernetes takes a table `kubernetes`, and no other does")
        return self


class TrainingData(BaseModel):
    """Where the data is. The training function gets `training` and, where there are any, `field` samples."""

    model_config = CONTRACT
    training: str = Field(description="what the model was trained on so far: a path, or a URL")
    evaluation: str = Field(
        description="labelled data that is never trained on, as 'edgewright convert --evaluation' takes it"
    )
    calibration: str | None = Field(
        default=None, description="to set INT8 ranges by; None: field samples, or `training` without any"
    )
    samples: str | None = Field(
        default=None, description="store of samples from the devices; None: no data from the field"
    )
    credentials_file: Path | None = Field(default=None, description="of that store; None: the environment's")
    labels: str | None = Field(default=None, description="file of labels of those samples")
    held_out_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.3, description="of the labelled samples, never trained on; the recent ones of them judge"
    )
    recent_days: Annotated[float, Field(gt=0)] = Field(
        default=30.0, description="how old a sample may be to judge a candidate by"
    )


class Conversion(BaseModel):
    """How the trained model becomes artifacts; every key as the option of 'edgewright convert'."""

    model_config = CONTRACT
    profiles: Annotated[tuple[str, ...], Field(min_length=1)]
    formats: tuple[ModelFormat, ...] | None = Field(default=None, description="None: all that a profile runs")
    max_drop: Annotated[float, Field(ge=0, le=100)] = 1.0
    precision: Precision | Literal["auto"] = "auto"
    fine_tune: Literal["auto", "always", "never"] = "auto"
    effort: Literal["quick", "standard", "thorough"] = "standard"


class RolloutCluster(BaseModel):
    """The cluster whose controller carries the rollout out; every key as the option of `fleet rollout start`."""

    model_config = CONTRACT
    context: str | None = Field(default=None, description="of the kubeconfig; None: its current one")
    kubeconfig: Path | None = Field(default=None, description="None: $KUBECONFIG, or ~/.kube/config")
    namespace: ObjectName = "edgewright"

    @model_validator(mode="after")
    def _is_named(self) -> RolloutCluster:
        if self.context is None and self.kubeconfig is None:
            raise ValueError("name a `context`, a `kubeconfig`, or both")
        return self


class Promotion(BaseModel):
    """What it takes for a candidate to be released, and the rollout that it is handed to."""

    model_config = CONTRACT
    criteria: Criteria = Criteria()
    by_hand: bool = Field(default=False, description="whether a better candidate waits for a person too")
    rollout: Path | None = Field(
        default=None, description="rollout YAML whose name and release are replaced; None: no rollout"
    )
    start: bool = Field(
        default=False, description="whether the rollout is carried out at once. false: its file is written"
    )
    cluster: RolloutCluster | None = Field(
        default=None, description="makes the rollout a ModelRollout there; None: of bare devices, at --broker"
    )

    @model_validator(mode="after")
    def _rolls_something_out(self) -> Promotion:
        if self.rollout is None and (self.start or self.cluster is not None):
            raise ValueError("`start` and `cluster` say what becomes of a `rollout`, whose file is not named")
        return self


class Signing(BaseModel):
    """The keys of 'edgewright trust init' that sign what is released."""

    model_config = CONTRACT
    keys: Annotated[tuple[Path, ...], Field(min_length=1)] = Field(
        description="key files, or folders of them"
    )
    passphrase_file: Path | None = Field(default=None, description="of these keys, chmod 600")


class RetrainingSpec(BaseModel):
    """The retraining of one model of one fleet."""

    model_config = CONTRACT
    schema_version: Literal[1] = Field(default=1, alias="schema")
    name: Name
    fleet: Name
    code: Path = Field(
        default=Path(), description="folder of the modules named here; the file's own by default"
    )
    model: Function = Field(description="module:function that builds the nn.Module, without its weights")
    weights: Path | None = Field(
        default=None,
        description="what training begins with; the last released run's from then on. None: the function's own",
    )
    release: Name = Field(description="name of the releases; each gets the next version")
    registry: Path = Field(description="folder of the OCI layout that devices pull from")
    runs: Path = Field(default=Path("runs"), description="folder for the runs")
    triggers: TriggerPolicy = TriggerPolicy(drift=DriftRule())
    hub: Path | None = Field(
        default=None, description="store of 'edgewright fleet hub', which knows of drift"
    )
    by: str = Field(
        default="profile", description="what makes a group: profile, release, or a device's label"
    )
    inferences_per_day: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="of a group, for `triggers.benefit`"
    )
    training: Training
    data: TrainingData
    conversion: Conversion
    promotion: Promotion = Promotion()
    signing: Signing | None = Field(default=None, description="None: who releases signs by hand, or nobody")
    intended_use: str = Field(default="", description="for the model card: what the model is for")
    limits: str = Field(default="", description="for the model card: where it must not be used")


def load_spec(path: Path) -> RetrainingSpec:
    """Read a specification; relative paths are relative to the file. Raises `ConfigError`."""
    spec = read_spec(RetrainingSpec, path)
    folder = path.absolute().parent
    return spec.model_copy(
        update={
            "code": folder / spec.code,
            "hub": folder / spec.hub if spec.hub else None,
            "registry": folder / spec.registry,
            "runs": folder / spec.runs,
            "weights": folder / spec.weights if spec.weights else None,
            "data": spec.data.model_copy(update=_resolved(spec.data, folder)),
            "conversion": spec.conversion.model_copy(
                update={"profiles": tuple(_profile(name, folder) for name in spec.conversion.profiles)}
            ),
            "signing": spec.signing and _signing(spec.signing, folder),
            "promotion": spec.promotion.model_copy(update=_rollout(spec.promotion, folder)),
        }
    )


def _profile(name: str, folder: Path) -> str:
    return str(folder / name) if name.endswith(".toml") else name


def _signing(signing: Signing, folder: Path) -> Signing:
    passphrase = folder / signing.passphrase_file if signing.passphrase_file else None
    return Signing(keys=tuple(folder / place for place in signing.keys), passphrase_file=passphrase)


def _rollout(promotion: Promotion, folder: Path) -> dict[str, Any]:
    cluster = promotion.cluster
    if cluster is not None and cluster.kubeconfig is not None:
        cluster = cluster.model_copy(update={"kubeconfig": folder / cluster.kubeconfig})
    return {"rollout": folder / promotion.rollout if promotion.rollout else None, "cluster": cluster}


def check_files(spec: RetrainingSpec) -> None:
    """What is read here after the training must be there before it. Raises `ConfigError`."""
    here = {"evaluation": spec.data.evaluation, "calibration": spec.data.calibration}
    if spec.training.backend == "local":  # else it may lie where only the pods see it
        here["training"] = spec.data.training
    for key, at in here.items():
        if at is not None and ":" not in at and not Path(at).exists():
            raise ConfigError("no such file", where=f"data.{key}: {at}")
    for profile in spec.conversion.profiles:
        load_profile(profile)
    if spec.promotion.rollout is not None:
        template = read_template(spec.promotion.rollout, spec.release)
        if spec.promotion.cluster is not None:
            _check_cluster(spec.promotion.cluster, template.name)


def _check_cluster(cluster: RolloutCluster, rollout: str) -> None:
    """What can be known of it without asking it: it may be away now. Raises `ConfigError`."""
    if re.fullmatch(OBJECT_NAME, rollout) is None:
        problem = f"'{rollout}' is no name for an object of Kubernetes: lower case, digits, '.' and '-'"
        raise ConfigError(problem, where="promotion.rollout: name")
    files = [cluster.kubeconfig] if cluster.kubeconfig else []
    contexts = [cluster.context] if cluster.context else []
    for one in from_kubeconfig(files, contexts, cluster.namespace):
        one.close()


def _resolved(data: TrainingData, folder: Path) -> dict[str, Any]:
    """Data by key, with what names a file made absolute; URLs and module:function stay."""
    made = {
        key: str(folder / value) if isinstance(value, str) and ":" not in value else value
        for key, value in data
    }
    return made | {"credentials_file": folder / data.credentials_file if data.credentials_file else None}
