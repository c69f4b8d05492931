"""What a run of the benchmark found, as it is written to JSON: figures alone, no judgement."""

from __future__ import annotations

from pydantic import BaseModel, Field

from edgewright.artifact.manifest import Difference, Proportion
from edgewright.contract import CONTRACT


class Ratio(BaseModel):
    """A ratio of two latencies: the median of the rounds, and the lowest and highest round."""

    model_config = CONTRACT
    value: float = Field(gt=0)
    low: float = Field(gt=0)
    high: float = Field(gt=0)


class AgainstOurs(BaseModel):
    """Our artifact for the same runtime (for another runtime: our ONNX artifact) against a peer's."""

    model_config = CONTRACT
    ours: str
    accuracy: Difference = Field(description="ours minus the peer's, on the same samples")
    time: Ratio = Field(description="our latency over the peer's")


class Row(BaseModel):
    """One variant of one tool on one model; where `failure` says why there is no artifact, nothing else does."""

    model_config = CONTRACT
    tool: str
    variant: str
    failure: str | None = None
    runtime: str | None = None
    takes: str | None = Field(default=None, description="the dtype of the artifact's input")
    accuracy: Proportion | None = None
    change: Difference | None = Field(default=None, description="against the float model; None: no labels")
    agreement: Proportion | None = None
    sqnr_db: float | None = None
    latency_s: float | None = None
    speed_up: Ratio | None = Field(default=None, description="over the float model in the same runtime")
    artifact_bytes: int | None = None
    convert_seconds: float | None = None
    peak_rss_bytes: int | None = None
    against_ours: AgainstOurs | None = None

    @property
    def name(self) -> str:
        return f"{self.tool} {self.variant}"


class ModelResult(BaseModel):
    """All tools on one model."""

    model_config = CONTRACT
    name: str
    title: str
    calibration_samples: int
    evaluation_samples: int
    float_accuracy: Proportion | None = None
    float_latency_s: dict[str, float]
    float_bytes: dict[str, int]
    rows: tuple[Row, ...]


class Result(BaseModel):
    """One run: when, where, with what, and what it found."""

    model_config = CONTRACT
    date: str
    processor: str
    cores: int
    python: str
    quick: bool
    versions: dict[str, str]
    models: tuple[ModelResult, ...] = ()
