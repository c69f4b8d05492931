"""`ArtifactManifest`: what one artifact is, computes and was seen to achieve.

It is the config blob of the artifact's OCI manifest, so its digest is covered by everything that points
at the artifact. Every figure in it says how it was got.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from edgewright.contract import CONTRACT
from edgewright.telemetry.sketch import DataSketch

ModelFormat = Literal["onnx", "tflite"]
Arithmetic = Literal["float32", "float16", "int8"]
Precision = Literal["float32", "float16", "int8", "int8-dynamic", "int8-weights", "int4-weights"]
"""How a model computes and is stored. `int8` is static: ranges were calibrated. `int8-dynamic` finds the ranges of
activations at run time. `int8-weights` and `int4-weights` compute in float with small weights."""
Verdict = Literal["pass", "fail", "inconclusive"]
DataKind = Literal["evaluation", "calibration", "generated"]
"""`generated`: noise, where there was no data; what it shows is not the accuracy of the model."""
Dtype = Literal["float32", "float16", "int8", "uint8", "int16", "int32", "int64", "bool"]


def computed_in(precision: Precision, model_format: ModelFormat) -> Arithmetic:
    """What the multiplications run in, as profiles name it; TFLite's float16 is in the weights alone."""
    if precision in ("int8", "int8-dynamic"):
        return "int8"
    return "float16" if precision == "float16" and model_format == "onnx" else "float32"


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)]
"""A model name or version: safe in an OCI tag, an MQTT topic and a file name alike."""
# Lengths beside the pattern: a compiled `{0,127}` takes 40 kB, in each of the forty places where a name stands.
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]+$", min_length=71, max_length=71)]


class Quantisation(BaseModel):
    """Per-tensor affine quantisation: real = scale * (stored - zero_point) (Jacob et al. 2018, eq. 1)."""

    model_config = CONTRACT
    scale: float = Field(gt=0)
    zero_point: int


class TensorSpec(BaseModel):
    """One input or output of an artifact, as the runtime sees it."""

    model_config = CONTRACT
    name: str = Field(min_length=1, description="the name in the source model, by which callers address it")
    runtime_name: str = Field(min_length=1, description="the name inside the model file")
    shape: tuple[Annotated[int, Field(ge=0)], ...] = Field(description="in the artifact's axis order")
    dtype: Dtype
    quantisation: Quantisation | None = None
    permutation: tuple[int, ...] | None = Field(
        default=None,
        description="the source tensor's axes in the artifact's order (NCHW held as NHWC: 0, 2, 3, 1)",
    )

    @property
    def source_shape(self) -> tuple[int, ...]:
        """The shape in the axis order of the source model, which is what callers pass and get."""
        if self.permutation is None:
            return self.shape
        return tuple(self.shape[self.permutation.index(axis)] for axis in range(len(self.shape)))


class ImagePreprocessing(BaseModel):
    """How a photo becomes the model's input: RGB, resized, `(x - mean) / std` on 0–255, then NCHW."""

    model_config = CONTRACT
    kind: Literal["image"] = "image"
    height: int = Field(gt=0, le=16_384)
    width: int = Field(gt=0, le=16_384)
    mean: tuple[float, float, float]
    std: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


class Classification(BaseModel):
    """The output holds one score a class along its last axis; the greatest wins."""

    model_config = CONTRACT
    kind: Literal["classification"] = "classification"
    output: str


class Proportion(BaseModel):
    """A share of samples with its 95 % confidence interval (Wilson 1927)."""

    model_config = CONTRACT
    value: float = Field(ge=0, le=1)
    low: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)
    samples: int = Field(gt=0)


class Difference(BaseModel):
    """A paired difference of two shares with its 95 % confidence interval, in shares (0.01 = one point)."""

    model_config = CONTRACT
    value: float = Field(ge=-1, le=1)
    low: float = Field(ge=-1, le=1)
    high: float = Field(ge=-1, le=1)
    samples: int = Field(gt=0)
    lost: int | None = Field(default=None, ge=0, description="samples that only the first has right")
    gained: int | None = Field(default=None, ge=0, description="samples that only the second has right")


class AccuracyReport(BaseModel):
    """How the artifact, as its runtime executes it, compares with the float source model."""

    model_config = CONTRACT
    how: Literal["measured on host"] = "measured on host"
    executed_by: str = Field(description="the runtime and version that executed the artifact")
    data: DataKind = Field(description="which data the figures are from")
    samples: int = Field(gt=0)
    sqnr_db: dict[str, float] = Field(description="signal to quantisation noise of each output, decibels")
    cosine: dict[str, float] = Field(
        default_factory=dict, description="cosine of each output with the float model's, over all samples"
    )
    agreement: Proportion | None = Field(default=None, description="same top class as the float model")
    float_accuracy: Proportion | None = Field(default=None, description="None: no labels, not measured")
    artifact_accuracy: Proportion | None = None
    change: Difference | None = Field(default=None, description="artifact accuracy minus float accuracy")


class DriftReference(BaseModel):
    """What the data of the conversion looks like to the artifact, against which a device's data is held."""

    model_config = CONTRACT
    how: Literal["measured on host"] = "measured on host"
    data: Literal["evaluation", "calibration"] = Field(description="which data set was sketched")
    sketch: DataSketch


class LatencyFigure(BaseModel):
    """One latency, in seconds, with how it was got; a predicted figure has bounds in place of percentiles."""

    model_config = CONTRACT
    how: Literal["measured on host", "emulated", "predicted"]
    where: str = Field(description="the processor measured on, or the profile predicted for")
    runtime: str
    precision: Precision
    threads: int = Field(gt=0)
    p50_s: float = Field(gt=0)
    p99_s: float | None = Field(default=None, gt=0)
    low_s: float | None = Field(default=None, gt=0)
    high_s: float | None = Field(default=None, gt=0)
    samples: int = Field(ge=0)


class GateCheck(BaseModel):
    """One question that the gate asked of an artifact, what was seen, and what it says about it."""

    model_config = CONTRACT
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    verdict: Verdict
    actual: float | None = Field(default=None, description="None: not measured")
    low: float | None = Field(default=None, description="lower end of the 95 % interval or of the prediction")
    high: float | None = None
    limit: float | None = Field(default=None, description="None: nothing was asked of it")
    unit: str
    how: Literal["measured on host", "emulated", "predicted", "not measured"]
    samples_needed: int | None = Field(
        default=None,
        gt=0,
        description="samples that would decide an inconclusive check; None: no number would",
    )
    says: str = Field(description="the verdict in plain words")
    remedy: str | None = Field(default=None, description="what to do about a miss")


class FloatOperator(BaseModel):
    """An operator that the runtime executes in float."""

    model_config = CONTRACT
    name: str
    type: str
    mac_share: float | None = Field(default=None, ge=0, le=1, description="None: MACs could not be counted")
    time_share: float | None = Field(default=None, ge=0, le=1, description="of one inference")


class GateReport(BaseModel):
    """Whether an artifact holds what was asked of it: the checks, and one verdict over them.

    `fail` if any check fails; else `inconclusive` if a check of accuracy is; else `pass`. What is predicted for a
    device, or measured on a host that is not the device, may stay open without holding up a pass: it is settled
    there, and would otherwise make every conversion inconclusive. So may a file larger than float's: it is said,
    and may be worth its speed.
    """

    model_config = CONTRACT
    verdict: Verdict
    checks: tuple[GateCheck, ...] = Field(min_length=1)
    int8_mac_share: float | None = Field(
        default=None, ge=0, le=1, description="share of the multiply-accumulates that run in INT8"
    )
    float_operators: tuple[FloatOperator, ...] = ()
    operator_time: Literal["measured on host", "predicted"] | None = Field(
        default=None, description="how the time shares of operators were got"
    )
    runtime_memory_bytes: int | None = Field(
        default=None, gt=0, description="peak of a process that only imported the runtime, measured on host"
    )
    peak_memory_bytes: int | None = Field(
        default=None, gt=0, description="peak of the same process after loading and running the artifact"
    )
    conversion_s: float = Field(ge=0, description="from the source to this artifact's verdict")


class GoldenPolicy(BaseModel):
    """Which golden vectors prove the artifact, and how close a device's outputs must come."""

    model_config = CONTRACT
    digest: Digest
    vectors: int = Field(gt=0)
    runtime: str = Field(description="the runtime and version that made the expected outputs")
    max_lsb: int = Field(ge=0, description="for integer outputs, in units of the last place")
    relative_tolerance: float = Field(ge=0, description="for float outputs, of the output's largest value")


class Provenance(BaseModel):
    """Where the artifact came from."""

    model_config = CONTRACT
    source: str
    calibration_samples: int = Field(ge=0)
    calibration_digest: Digest | None = None
    training_samples: int = Field(default=0, ge=0, description="that INT8 was fine-tuned on")
    training_digest: Digest | None = None
    tools: dict[str, str] = Field(default_factory=dict, description="package name to version")


class ArtifactManifest(BaseModel):
    """One version of a model for one hardware profile in one format."""

    model_config = CONTRACT
    schema_version: Literal[1] = Field(default=1, alias="schema")
    name: Name
    version: Name
    profile: Name
    format: ModelFormat
    precision: Precision
    runtimes: tuple[str, ...] = Field(description="runtimes that execute it correctly, preferred first")
    model_digest: Digest
    model_bytes: int = Field(gt=0)
    float_bytes: int | None = Field(default=None, gt=0, description="the float model in the same format")
    inputs: tuple[TensorSpec, ...] = Field(min_length=1)
    outputs: tuple[TensorSpec, ...] = Field(min_length=1)
    preprocessing: ImagePreprocessing | None = None
    postprocessing: Classification | None = None
    labels: tuple[str, ...] | None = None
    golden: GoldenPolicy
    accuracy: AccuracyReport
    gate: GateReport | None = Field(default=None, description="None: made before there was a gate")
    drift_reference: DriftReference | None = Field(
        default=None, description="None: the artifact was made before there was one"
    )
    latencies: tuple[LatencyFigure, ...] = ()
    float_operators: tuple[str, ...] = Field(
        default=(), description="operators left in float, by type and name; empty when all is integer"
    )
    macs: int | None = Field(default=None, ge=0, description="multiply-accumulates of one inference")
    provenance: Provenance


def failed_checks(manifest: ArtifactManifest) -> str | None:
    """Why the gate failed the artifact, in its own words; None where it did not, or there was no gate yet."""
    if manifest.gate is None or manifest.gate.verdict != "fail":
        return None
    return (
        "; ".join(check.says for check in manifest.gate.checks if check.verdict == "fail")
        or "no reason given"
    )
