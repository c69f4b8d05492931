"""What a payload says of the device's energy and heat and of a release's data, as fields of a
`TelemetryWindow`.

A series that is missing is a figure that is not known: the field stays None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgewright.contract import from_json
from edgewright.errors import DataError
from edgewright.telemetry import names
from edgewright.telemetry.otlp import read_number
from edgewright.telemetry.sketch import DataSketch, Drift

Points = Mapping[str, Sequence[tuple[Mapping[str, Any], Any]]]
"""The data points of a payload by metric, each with its attributes."""


def energy_fields(points: Points) -> dict[str, Any]:
    """Measured and estimated energy, which never share a field."""
    return {
        "energy_j": _total(points, names.ENERGY),
        "energy_sensor": _attribute(points, names.ENERGY, names.SENSOR),
        "energy_uncertainty_j": _total(points, names.ENERGY_UNCERTAINTY),
        "energy_above_idle_j": _total(points, names.ENERGY_ABOVE_IDLE),
        "energy_above_idle_uncertainty_j": _total(points, names.ENERGY_ABOVE_IDLE_UNCERTAINTY),
        "idle_w": _total(points, names.POWER_IDLE),
        "sensor_period_s": _total(points, names.SENSOR_PERIOD),
        "estimated_energy_j": _total(points, names.ENERGY_ESTIMATED),
        "estimated_energy_above_idle_j": _total(points, names.ENERGY_ESTIMATED_ABOVE_IDLE),
    }


def heat_fields(points: Points) -> dict[str, Any]:
    """The hottest zone, the clocks, the time throttled."""
    return {
        "temperature_c": _total(points, names.TEMPERATURE),
        "temperature_zone": _attribute(points, names.TEMPERATURE, names.SENSOR),
        "cpu_hz": {
            str(attributes.get(names.LOGICAL_CPU, "0")): float(read_number(point))
            for attributes, point in points.get(names.CPU_FREQUENCY, ())
        },
        "throttled_s": _total(points, names.THROTTLED_TIME),
    }


def drift_fields(points: Points, digest: str) -> dict[str, Any]:
    """The sketch of a release's data, and how far it is from the reference. Raises `DataError`."""
    for attributes, point in points.get(names.DRIFT_SAMPLES, ()):
        if attributes.get(names.RELEASE_DIGEST) != digest:
            continue
        text = str(attributes.get(names.DRIFT_SKETCH, ""))
        figures = {
            str(about.get(names.DRIFT_FIGURE)): float(read_number(value))
            for about, value in points.get(names.DRIFT, ())
            if about.get(names.RELEASE_DIGEST) == digest
            and about.get(names.DRIFT_FIGURE) in Drift.model_fields
        }
        return {
            "sketch": from_json(DataSketch, text.encode(), where="telemetry payload", error=DataError),
            "drift": Drift(samples=int(read_number(point)), **figures) if figures else None,
        }
    return {}


def _total(points: Points, name: str) -> float | None:
    found = points.get(name, ())
    return sum(float(read_number(point)) for _, point in found) if found else None


def _attribute(points: Points, name: str, key: str) -> str | None:
    found = points.get(name, ())
    return found[0][0].get(key) if found else None
