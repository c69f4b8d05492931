"""`TelemetryWindow`: what one device measured of one release in one period, and how a receiver reads it from OTLP.

The device writes OTLP with delta temporality (`names.py` has the metrics). A payload that spans a switch of
versions gives one window for each, so that (boot, sequence, release) names a window.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from edgewright.artifact.manifest import Digest, Name
from edgewright.contract import CONTRACT
from edgewright.errors import DataError, first_violation
from edgewright.telemetry import names
from edgewright.telemetry.histogram import ExponentialHistogram, merged
from edgewright.telemetry.sketch import DataSketch, Drift

EMPTY = ExponentialHistogram(scale=20)


class TelemetryWindow(BaseModel):
    """One device, one release, one period. Durations are in seconds."""

    model_config = CONTRACT
    schema_version: Literal[1] = Field(default=1, alias="schema")
    fleet: Name
    device: Name
    profile: Name
    boot: str
    sequence: int = Field(ge=0, description="of the payload that held it; grows by one a payload of a boot")
    start_ns: int = Field(ge=0, description="Unix time, nanoseconds, by the device's clock")
    end_ns: int = Field(ge=0)
    model: Name
    version: Name
    release: Digest
    latency: ExponentialHistogram = Field(description="in the runtime, while the device was not throttled")
    throttled: ExponentialHistogram = Field(default=EMPTY, description="the same while it was")
    queue: ExponentialHistogram = Field(default=EMPTY, description="waiting for the model to be free")
    preprocessing: ExponentialHistogram = EMPTY
    postprocessing: ExponentialHistogram = EMPTY
    errors: int = Field(ge=0)
    errors_by_kind: dict[str, int] = Field(default_factory=dict, description="by error.type")
    dropped: int = Field(default=0, ge=0, description="payloads that the device had to drop so far")
    energy_j: float | None = Field(
        default=None, ge=0, description="of the whole device; None without a sensor"
    )
    energy_sensor: str | None = None
    energy_uncertainty_j: float | None = Field(default=None, ge=0, description="None: nobody says")
    energy_above_idle_j: float | None = Field(
        default=None, description="None: the power at rest is not known yet; may be negative"
    )
    energy_above_idle_uncertainty_j: float | None = Field(default=None, ge=0)
    idle_w: float | None = Field(default=None, ge=0, description="at rest, as measured between inferences")
    sensor_period_s: float | None = Field(
        default=None, gt=0, description="between two readings of the sensor"
    )
    estimated_energy_j: float | None = Field(
        default=None, ge=0, description="from the profile, of a device without a sensor; not measured"
    )
    estimated_energy_above_idle_j: float | None = Field(default=None, ge=0, description="not measured")
    temperature_c: float | None = Field(default=None, description="the hottest zone at the end of the window")
    temperature_zone: str | None = None
    cpu_hz: dict[str, float] = Field(default_factory=dict, description="by the first core of each kind")
    throttled_s: float | None = Field(default=None, ge=0, description="None: not throttled, or not known")
    sketch: DataSketch | None = Field(default=None, description="of the release's data; not in every window")
    drift: Drift | None = Field(default=None, description="of the sketch from the manifest's reference")

    @property
    def energy_per_inference_j(self) -> float | None:
        """Measured joules above idle of one inference; None where they or the inferences are not known."""
        inferences = self.latency.count + self.throttled.count
        return (
            None
            if self.energy_above_idle_j is None or not inferences
            else self.energy_above_idle_j / inferences
        )


def decode_otlp(payload: bytes, *, stages: bool = True) -> tuple[TelemetryWindow, ...]:
    """The windows in an OTLP `MetricsData` payload, protobuf or JSON. Raises `DataError` for anything else.

    Without `stages` the durations before and after the run are left out, which are most of the work.
    """
    # Here, so that the contract alone needs no protobuf library.
    from edgewright.telemetry.otlp import from_bytes

    message = from_bytes(payload)
    try:
        return tuple(window for part in message.resource_metrics for window in _windows(part, stages))
    except ValidationError as violation:
        place, problem = first_violation(violation)
        raise DataError(f"{place}: {problem}", where="telemetry payload") from None
    # What is missing, and numbers that are none.
    except (KeyError, IndexError, ValueError, OverflowError) as error:
        raise DataError(f"a telemetry payload cannot be read ({error})") from None


def _shared_attributes(scope: Any) -> dict[str, Any]:
    text = scope.SerializeToString()
    # A device may send as much as a payload holds, and that is not for keeping.
    return _kept_attributes(text) if len(text) < 512 else _read_scope(text)


def _read_scope(scope: bytes) -> dict[str, Any]:
    from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope

    from edgewright.telemetry.otlp import read_attributes

    return dict(read_attributes(InstrumentationScope.FromString(scope).attributes))


_kept_attributes = lru_cache(64)(_read_scope)
"""What scopes say of their release, which a whole fleet says in the same bytes; not to be changed."""


def _sum(parts: list[ExponentialHistogram] | None) -> ExponentialHistogram:
    if parts is None:
        return EMPTY
    return parts[0] if len(parts) == 1 and parts[0].count else merged(parts)


def _windows(resource: Any, stages: bool) -> Iterator[TelemetryWindow]:
    from edgewright.telemetry.device_figures import drift_fields, energy_fields, heat_fields
    from edgewright.telemetry.otlp import read_attributes, read_histogram, read_number

    points: dict[str, list[tuple[dict[str, Any], Any]]] = {}
    for scope in resource.scope_metrics:
        shared = _shared_attributes(scope.scope)
        for metric in scope.metrics:
            kind = metric.WhichOneof("data")
            if kind is None or (name := metric.name) not in names.OF_A_WINDOW:
                continue
            found = points.setdefault(name, [])
            for point in getattr(metric, kind).data_points:
                own = read_attributes(point.attributes)
                found.append(({**shared, **own} if own else shared, point))

    # Only what begins with our own metric is ours: a device may report more than Edgewright reads.
    sequence = int(read_number(points[names.REPORT_SEQUENCE][0][1]))
    who = read_attributes(resource.resource.attributes)
    models: dict[str, tuple[dict[str, Any], Any]] = {}
    durations: dict[tuple[str, str], list[ExponentialHistogram]] = {}
    errors: dict[str, dict[str, int]] = {}
    for attributes, point in points.get(names.INFERENCE_DURATION, []):
        digest = attributes[names.RELEASE_DIGEST]
        models[digest] = attributes, point
        stage = attributes.get(names.STAGE, "run")
        if stage == "run":
            if attributes.get(names.THROTTLED):
                stage = "throttled"
        elif not stages:
            continue
        durations.setdefault((digest, stage), []).append(read_histogram(point))
    for attributes, point in points.get(names.INFERENCE_ERRORS, []):
        digest = attributes[names.RELEASE_DIGEST]
        models.setdefault(digest, (attributes, point))
        kinds = errors.setdefault(digest, {})
        kind = str(attributes.get(names.ERROR_TYPE, "_OTHER"))  # OpenTelemetry's word for an unknown kind
        kinds[kind] = kinds.get(kind, 0) + int(read_number(point))
    for attributes, point in points.get(names.DRIFT_SAMPLES, []):
        # A sketch may come when nothing was inferred since the last payload.
        models.setdefault(attributes[names.RELEASE_DIGEST], (attributes, point))
    for digest, (model, point) in models.items():
        yield TelemetryWindow(
            fleet=who[names.FLEET],
            device=who[names.DEVICE],
            profile=who[names.PROFILE],
            boot=who[names.BOOT],
            sequence=sequence,
            start_ns=point.start_time_unix_nano,
            end_ns=point.time_unix_nano,
            model=model[names.MODEL_NAME],
            version=model[names.MODEL_VERSION],
            release=digest,
            latency=_sum(durations.get((digest, "run"))),
            throttled=_sum(durations.get((digest, "throttled"))),
            queue=_sum(durations.get((digest, "queue"))),
            preprocessing=_sum(durations.get((digest, "preprocessing"))),
            postprocessing=_sum(durations.get((digest, "postprocessing"))),
            errors=sum(errors.get(digest, {}).values()),
            errors_by_kind=errors.get(digest, {}),
            dropped=sum(int(read_number(point)) for _, point in points.get(names.REPORTS_DROPPED, [])),
            # Energy is of the device: where a payload spans two releases it cannot be told apart.
            **(energy_fields(points) if len(models) == 1 else {}),
            **heat_fields(points),
            **drift_fields(points, digest),
        )
