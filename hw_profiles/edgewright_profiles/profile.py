"""`HardwareProfile`: the schema of a profile file, in which every group of facts names its sources.

It owns the types, what they refuse, and the JSON Schema made from them. The files are in `data/`, and
`catalog` reads them. A budget is a decision of ours, not a fact of the device, and its source says so.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgewright_profiles.errors import ProfileError

ModelFormat = Literal["onnx", "tflite"]
Precision = Literal["float32", "float16", "int8"]
DelegateName = Literal["edge-tpu", "nnapi", "tensorrt"]

_DELEGATES: dict[str, DelegateName] = {"TensorrtExecutionProvider": "tensorrt"}
"""The delegate of a runtime's `provider`, where it computes on an accelerator."""

T = TypeVar("T")
# Strict mode takes only a tuple for a tuple; TOML and JSON have nothing but arrays.
Array = Annotated[tuple[T, ...], Field(strict=False)]
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]


class _Strict(BaseModel):
    """Frozen; an unknown key, a NaN and a number written as a string are errors."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )


class Source(_Strict):
    """Where a fact stands."""

    title: Text
    document: Text = Field(
        description="web address or document number; for our own figures, how they were got"
    )
    consulted: date | None = Field(
        default=None,
        description="day on which the document, or a stored copy of it, was open beside the entry; "
        "absent: entered from knowledge of it and still to be checked against it",
    )
    note: Text | None = Field(
        default=None, description="how the figure follows, and whether it is an estimate"
    )


class FactGroup(_Strict):
    """A group of facts that stand in the same sources."""

    source: Array[Text] = Field(min_length=1, description="ids in the profile's `sources`")


class Soc(FactGroup):
    """The system on a chip."""

    vendor: Text
    name: Text
    isa: Literal["aarch64", "armv7l", "x86_64"]
    features: Array[Text] = Field(description="what kernels choose by, as /proc/cpuinfo names it")


class CoreCluster(FactGroup):
    """Cores of one kind; peaks are multiply-accumulates a cycle on one core, at one operation a pipe."""

    name: Text
    count: Count
    max_clock_hz: Positive
    int8_macs_per_cycle: Positive
    float16_macs_per_cycle: Positive
    float32_macs_per_cycle: Positive


class Memory(FactGroup):
    """Main memory; the bandwidth is the theoretical peak, shared by all cores."""

    bytes: Count
    bandwidth_bytes_per_s: Positive


class Delegation(_Strict):
    """What brings a model onto an accelerator, and how much of a model has to go there."""

    name: DelegateName = Field(description="`delegates/` says what it takes of a model")
    least_mac_share: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None,
        description="share of the multiply-accumulates that must be able to run there, or the gate fails; "
        "absent: the share is told, and nothing is asked of it",
    )


class Accelerator(FactGroup):
    """An accelerator of the device, and whether any runtime of this profile uses it.

    The peaks are of dense arithmetic, multiply-accumulates a second; None: not known.
    """

    name: Text
    kind: Literal["gpu", "npu", "dsp"]
    numeric_formats: Array[Text]
    used: bool
    delegate: Delegation | None = None
    int8_macs_per_s: Positive | None = None
    float16_macs_per_s: Positive | None = None
    float32_macs_per_s: Positive | None = None

    def peak_macs_per_s(self, precision: Precision) -> float | None:
        """Multiply-accumulates a second, None where the profile does not know."""
        peak: float | None = getattr(self, f"{precision}_macs_per_s")
        return peak


class RuntimeSettings(FactGroup):
    """A runtime that works there, with its settings; the first in a profile is preferred."""

    name: Literal["onnxruntime", "litert"]
    format: ModelFormat
    provider: Text = Field(description="execution provider (ONNX Runtime) or delegate (LiteRT)")
    threads: Count
    activation_dtype: Literal["uint8", "int8"] = Field(description="type of quantised activations")
    activation_symmetric: bool = Field(
        default=False,
        description="quantise as TensorRT demands: zero points of activations at nought, biases in float",
    )
    bit_exact: bool = Field(
        default=False,
        description="integer outputs are the converter's bit for bit; else the manifest's tolerance holds",
    )


class NumericFormats(FactGroup):
    """The formats that run at least as fast as float32 there, float32 itself included."""

    fast: Array[Precision] = Field(min_length=1)


class PowerSensor(FactGroup):
    """A sensor that the agent can read on the device as it is sold."""

    kind: Literal["ina3221", "pmic", "rapl", "battery"]
    covers: Text = Field(description="what the reading includes, and what it leaves out")


class NoPowerSensor(FactGroup):
    """The finding that the device cannot measure its own power, and what to do instead."""

    note: Text
    idle_w: Positive | None = Field(
        default=None, description="whole device at rest, to estimate with; never shown as measured"
    )
    loaded_w: Positive | None = Field(default=None, description="the same with all cores at work")


class Budgets(FactGroup):
    """What a model may cost on this device unless the user says otherwise; None sets no limit."""

    artifact_bytes: Count | None = None
    peak_memory_bytes: Count | None = None
    latency_p99_s: Positive | None = None
    power_w: Positive | None = None


class HardwareProfile(_Strict):
    """What a device is, as far as running a model on it goes."""

    schema_version: Literal[1] = Field(alias="schema")
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    title: Text
    soc: Soc
    cores: Array[CoreCluster] = Field(min_length=1, description="fastest first")
    memory: Memory
    accelerators: Array[Accelerator] = ()
    runtimes: Array[RuntimeSettings] = Field(min_length=1, description="preferred first")
    numeric_formats: NumericFormats
    power_sensors: Array[PowerSensor] = ()
    no_power_sensor: NoPowerSensor | None = None
    budgets: Budgets
    sources: dict[str, Source]

    @model_validator(mode="after")
    def _sources_exist(self) -> HardwareProfile:
        groups = self.fact_groups()
        for key, group in groups.items():
            if missing := sorted(set(group.source) - set(self.sources)):
                raise ValueError(f"{key}: source '{missing[0]}' is not in [sources]")
        used = {source for group in groups.values() for source in group.source}
        if idle := sorted(set(self.sources) - used):
            raise ValueError(f"sources.{idle[0]}: backs no fact")
        return self

    @model_validator(mode="after")
    def _power_is_accounted_for(self) -> HardwareProfile:
        if bool(self.power_sensors) == bool(self.no_power_sensor):
            raise ValueError("power_sensors: list the sensors, or say in [no_power_sensor] why there is none")
        if self.no_power_sensor is not None:
            idle_w, loaded_w = self.no_power_sensor.idle_w, self.no_power_sensor.loaded_w
            if (idle_w is None) != (loaded_w is None) or (idle_w or 0.0) > (loaded_w or 0.0):
                raise ValueError(
                    "no_power_sensor: give both idle_w and loaded_w, the greater last, or neither"
                )
        return self

    def fact_groups(self) -> dict[str, FactGroup]:
        """Every group of facts by its key path, as `cores.0`."""
        groups: dict[str, FactGroup] = {}
        for key in HardwareProfile.model_fields:
            value = getattr(self, key)
            if isinstance(value, FactGroup):
                groups[key] = value
            elif isinstance(value, tuple):
                groups.update({f"{key}.{index}": group for index, group in enumerate(value)})
        return groups

    def accelerator_for(self, model_format: ModelFormat) -> Accelerator | None:
        """The accelerator that the preferred runtime for a format computes on; None: it computes on the cores.

        Raises `ProfileError` for a format that it does not run.
        """
        delegate = _DELEGATES.get(self.runtime_for(model_format).provider)
        found = (a for a in self.accelerators if a.used and a.delegate and a.delegate.name == delegate)
        return next(found, None)

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
        """Multiply-accumulates a second of the `threads` fastest cores at full clock; more threads add none."""
        peak, left = 0.0, threads
        for cluster in self.cores:
            used = min(left, cluster.count)
            rate: float = getattr(cluster, f"{precision}_macs_per_cycle")
            peak += used * rate * cluster.max_clock_hz
            left -= used
        return peak


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a profile file; `schema/hardware-profile.schema.json` holds it."""
    return HardwareProfile.model_json_schema(by_alias=True)
