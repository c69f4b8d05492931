"""`HardwareProfile`: the schema of a profile file, in which every group of facts names its sources.

The files are in `data/`; `catalog` reads them. A budget is a decision of ours, not a fact, and its source
says so.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgewright_profiles.errors import ProfileError

ModelFormat = Literal["onnx", "tflite"]
Precision = Literal["float32", "float16", "int8"]

_STRICT = ConfigDict(
    frozen=True,
    extra="forbid",
    allow_inf_nan=False,
    validate_by_name=True,
    validate_by_alias=True,
    serialize_by_alias=True,
)
SourceIds = Annotated[tuple[str, ...], Field(min_length=1, description="ids in the profile's `sources`")]
Positive = Annotated[float, Field(gt=0)]


class Source(BaseModel):
    """Where a fact stands."""

    model_config = _STRICT
    title: str = Field(min_length=1)
    recorded: str = Field(pattern=r"^\d{4}-\d{2}$", description="year and month of the entry")
    note: str | None = None


class _Sourced(Protocol):
    """A group of facts that names its sources."""

    @property
    def source(self) -> tuple[str, ...]: ...


class Soc(BaseModel):
    """The system on a chip."""

    model_config = _STRICT
    vendor: str
    name: str
    isa: Literal["aarch64", "armv7l", "x86_64"]
    features: tuple[str, ...] = Field(description="as /proc/cpuinfo names them")
    source: SourceIds


class CoreCluster(BaseModel):
    """Cores of one kind; peaks are multiply-accumulates a cycle on one core."""

    model_config = _STRICT
    name: str
    count: Annotated[int, Field(gt=0)]
    max_clock_hz: Positive
    int8_macs_per_cycle: Positive
    float16_macs_per_cycle: Positive
    float32_macs_per_cycle: Positive
    source: SourceIds


class Memory(BaseModel):
    """Main memory; bandwidth is the theoretical peak."""

    model_config = _STRICT
    bytes: Annotated[int, Field(gt=0)]
    bandwidth_bytes_per_s: Positive
    source: SourceIds


class Accelerator(BaseModel):
    """An accelerator of the device, and whether any runtime of this profile uses it."""

    model_config = _STRICT
    name: str
    kind: Literal["gpu", "npu", "dsp"]
    numeric_formats: tuple[str, ...]
    used: bool
    source: SourceIds


class RuntimeSettings(BaseModel):
    """A runtime that works there, with its settings; the first in a profile is preferred."""

    model_config = _STRICT
    name: Literal["onnxruntime", "litert"]
    format: ModelFormat
    provider: str = Field(description="execution provider (ONNX Runtime) or delegate (LiteRT)")
    threads: Annotated[int, Field(gt=0)]
    activation_dtype: Literal["uint8", "int8"]
    source: SourceIds


class NumericFormats(BaseModel):
    """The formats that run faster than float32 there, float32 itself included."""

    model_config = _STRICT
    fast: tuple[Precision, ...]
    source: SourceIds


class PowerSensor(BaseModel):
    """A sensor that the agent can read on the device as it is sold."""

    model_config = _STRICT
    kind: Literal["ina3221", "pmic", "rapl", "battery"]
    covers: str
    source: SourceIds


class Budgets(BaseModel):
    """What a model may cost on this device unless the user says otherwise."""

    model_config = _STRICT
    artifact_bytes: Annotated[int, Field(gt=0)] | None = None
    peak_memory_bytes: Annotated[int, Field(gt=0)] | None = None
    latency_p99_s: Positive | None = None
    power_w: Positive | None = None
    source: SourceIds


class HardwareProfile(BaseModel):
    """What a device is, as far as running a model on it goes."""

    model_config = _STRICT
    schema_version: Literal[1] = Field(alias="schema")
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    title: str
    soc: Soc
    cores: tuple[CoreCluster, ...] = Field(min_length=1, description="fastest first")
    memory: Memory
    accelerators: tuple[Accelerator, ...] = ()
    runtimes: tuple[RuntimeSettings, ...] = Field(min_length=1)
    numeric_formats: NumericFormats
    power_sensors: tuple[PowerSensor, ...] = ()
    budgets: Budgets
    sources: dict[str, Source]

    @model_validator(mode="after")
    def _sources_exist(self) -> HardwareProfile:
        groups: tuple[_Sourced, ...] = (
            self.soc,
            *self.cores,
            self.memory,
            *self.accelerators,
            *self.runtimes,
            self.numeric_formats,
            *self.power_sensors,
            self.budgets,
        )
        used = {source for group in groups for source in group.source}
        if missing := sorted(used - set(self.sources)):
            raise ValueError(f"source '{missing[0]}' is not in [sources]")
        if idle := sorted(set(self.sources) - used):
            raise ValueError(f"source '{idle[0]}' backs no fact")
        return self

    @property
    def formats(self) -> tuple[ModelFormat, ...]:
        """Model formats that work there, preferred first."""
        return tuple(dict.fromkeys(runtime.format for runtime in self.runtimes))

    def runtime_for(self, model_format: ModelFormat) -> RuntimeSettings:
        """The preferred runtime for a format. Raises `ProfileError` that lists the formats there are."""
        for runtime in self.runtimes:
            if runtime.format == model_format:
                return runtime
        raise ProfileError(f"{self.name} runs no {model_format} model; it runs {', '.join(self.formats)}")

    def peak_macs_per_s(self, precision: Precision, threads: int) -> float:
        """Multiply-accumulates a second of the `threads` fastest cores at full clock."""
        peak, left = 0.0, threads
        for cluster in self.cores:
            used = min(left, cluster.count)
            rate: float = getattr(cluster, f"{precision}_macs_per_cycle")
            peak += used * rate * cluster.max_clock_hz
            left -= used
        return peak


def json_schema() -> str:
    """The JSON Schema of a profile file, as `schema/hardware-profile.schema.json` holds it."""
    return json.dumps(HardwareProfile.model_json_schema(by_alias=True), indent=2, sort_keys=True) + "\n"
