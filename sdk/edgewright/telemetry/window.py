"""`TelemetryWindow`: what one device measured of one release in one period, and how OTLP carries it.

The device writes OTLP with the OpenTelemetry SDK (delta temporality); a receiver reads it here. A payload
that spans a switch of versions gives one window for each.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from edgewright.artifact.manifest import Digest, Name
from edgewright.contract import CONTRACT
from edgewright.errors import DataError, first_violation
from edgewright.telemetry import names
from edgewright.telemetry.histogram import ExponentialHistogram


class TelemetryWindow(BaseModel):
    """One device, one release, one period."""

    model_config = CONTRACT
    schema_version: Literal[1] = Field(default=1, alias="schema")
    fleet: Name
    device: Name
    profile: Name
    boot: str
    sequence: int = Field(ge=0, description="of the payload that held it; (boot, sequence) is unique")
    start_ns: int = Field(ge=0, description="Unix time, nanoseconds, by the device's clock")
    end_ns: int = Field(ge=0)
    model: Name
    version: Name
    release: Digest
    latency: ExponentialHistogram
    errors: int = Field(ge=0)
    energy_j: float | None = Field(
        default=None, ge=0, description="of the whole device; None without a sensor"
    )
    energy_sensor: str | None = None


def decode_otlp(payload: bytes) -> tuple[TelemetryWindow, ...]:
    """The windows in an OTLP protobuf `MetricsData` payload. Raises `DataError` for anything else."""
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData

    message = MetricsData()
    try:
        message.ParseFromString(payload)
        return tuple(window for part in message.resource_metrics for window in _windows(part))
    except (DecodeError, KeyError, IndexError) as error:
        raise DataError(f"a telemetry payload cannot be read ({error})") from None
    except ValidationError as violation:
        place, problem = first_violation(violation)
        raise DataError(f"{place}: {problem}", where="telemetry payload") from None


def _attributes(pairs: Any) -> dict[str, str]:
    return {pair.key: pair.value.string_value for pair in pairs}


def _windows(resource: Any) -> Iterator[TelemetryWindow]:
    who = _attributes(resource.resource.attributes)
    metrics = {metric.name: metric for scope in resource.scope_metrics for metric in scope.metrics}
    sequence = int(metrics[names.REPORT_SEQUENCE].gauge.data_points[0].as_int)
    energy_j: float | None = None
    sensor: str | None = None
    if names.ENERGY in metrics:
        for point in metrics[names.ENERGY].sum.data_points:
            energy_j = (energy_j or 0.0) + float(point.as_double)
            sensor = _attributes(point.attributes).get(names.SENSOR)

    errors: dict[str, int] = {}
    models: dict[str, tuple[dict[str, str], int, int, ExponentialHistogram]] = {}
    if names.INFERENCE_ERRORS in metrics:
        for point in metrics[names.INFERENCE_ERRORS].sum.data_points:
            model = _attributes(point.attributes)
            digest = model[names.RELEASE_DIGEST]
            errors[digest] = errors.get(digest, 0) + int(point.as_int)
            empty = ExponentialHistogram(scale=20)
            models[digest] = (model, point.start_time_unix_nano, point.time_unix_nano, empty)
    if names.INFERENCE_DURATION in metrics:
        for point in metrics[names.INFERENCE_DURATION].exponential_histogram.data_points:
            model = _attributes(point.attributes)
            offset = point.positive.offset
            latency = ExponentialHistogram(
                scale=point.scale,
                zero_count=point.zero_count,
                buckets={offset + i: int(n) for i, n in enumerate(point.positive.bucket_counts) if n},
                total=point.sum,
            )
            digest = model[names.RELEASE_DIGEST]
            models[digest] = (model, point.start_time_unix_nano, point.time_unix_nano, latency)
    for digest, (model, start_ns, end_ns, latency) in models.items():
        yield TelemetryWindow(
            fleet=who[names.FLEET],
            device=who[names.DEVICE],
            profile=who[names.PROFILE],
            boot=who[names.BOOT],
            sequence=sequence,
            start_ns=start_ns,
            end_ns=end_ns,
            model=model[names.MODEL_NAME],
            version=model[names.MODEL_VERSION],
            release=digest,
            latency=latency,
            errors=errors.get(digest, 0),
            # Energy is of the device: where a payload spans two releases it cannot be told apart.
            energy_j=energy_j if len(models) == 1 else None,
            energy_sensor=sensor if len(models) == 1 else None,
        )
