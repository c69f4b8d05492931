"""The names of the metrics and attributes that a device reports, each with its kind and unit.

Names from the OpenTelemetry semantic conventions where they have one (`hw.*`, `system.*`, `process.*`,
`error.type`, `host.name`, `service.*`), ours under `edgewright.`. Counters and histograms are deltas: a
payload holds its own period alone. A series that nothing was recorded in is left out, and so is a gauge that
was not set since the last payload. What is said of a release (its name, version and digest) stands once, as
attributes of the OTLP scope that holds the release's series; device-wide series are in a scope without
attributes.
"""

from __future__ import annotations

from typing import Literal, get_args

INFERENCE_DURATION = "edgewright.inference.duration"
"""Exponential histogram, s: one stage of one inference that succeeded; the stages' sums add up to the whole.
Its count over the length of the window is the throughput."""
FEED_ERRORS = "edgewright.feed.errors"
"""Counter, {error}: times that the device's source gave no input or its sink took no prediction, by `error.type`;
no fault of the model's, and so not among its errors."""
INFERENCE_ERRORS = "edgewright.inference.errors"
"""Counter, {error}: inferences that ended in an error, by `error.type`."""
REPORT_SEQUENCE = "edgewright.report.sequence"
"""Gauge, {report}: grows by one with each payload of a boot, so that a receiver sees gaps and repeats."""
REPORTS_DROPPED = "edgewright.report.dropped"
"""Gauge, {report}: payloads that a full spool or a full disk cost so far, absent while there is none."""
ENERGY = "hw.energy"
"""Counter, J, from the sensor named in `hw.id`; absent where the device has none."""
ENERGY_UNCERTAINTY = "edgewright.energy.uncertainty"
"""Gauge, J: how far the window's `hw.energy` may be off, see the sensor's module; absent where nobody
says."""
ENERGY_ABOVE_IDLE = "edgewright.energy.above_idle"
"""Gauge, J: the window's energy less what the device draws at rest; absent until that is known. May be
negative."""
ENERGY_ABOVE_IDLE_UNCERTAINTY = "edgewright.energy.above_idle.uncertainty"
"""Gauge, J."""
POWER = "hw.power"
"""Gauge, W: mean of the window, from the sensor named in `hw.id`."""
POWER_IDLE = "edgewright.power.idle"
"""Gauge, W: median of the latest intervals in which no inference ran."""
SENSOR_PERIOD = "edgewright.sensor.period"
"""Gauge, s: between two readings of the power sensor."""
ENERGY_ESTIMATED = "edgewright.energy.estimated"
"""Counter, J: of a device without a sensor, from its profile's figures and the time it was busy. Not
measured."""
ENERGY_ESTIMATED_ABOVE_IDLE = "edgewright.energy.estimated.above_idle"
"""Counter, J: the inferences' part of it. Not measured."""
TEMPERATURE = "hw.temperature"
"""Gauge, Cel: the hottest thermal zone, named in `hw.id`."""
CPU_FREQUENCY = "system.cpu.frequency"
"""Gauge, Hz: mean over the cores of one kind, of which `cpu.logical_number` is the first."""
THROTTLED_TIME = "edgewright.throttled.time"
"""Counter, s: in which the device was slowed down; absent where it was not, or nothing there would say so."""
DRIFT_SAMPLES = "edgewright.drift.samples"
"""Counter, {inference}: those in the sketch that `edgewright.drift.sketch` holds as JSON (`DataSketch`)."""
DRIFT = "edgewright.drift"
"""Gauge, 1: how far the sketch is from the manifest's reference, by `edgewright.drift.figure` (`Drift`)."""
SAMPLES = "edgewright.samples"
"""Counter, {sample}: of a device that keeps samples for training, by `edgewright.sample.fate`: `kept`, `sent` to
the store, `over_budget` where no bytes were left for one, `failed` where the disk did not take it."""
PROCESS_MEMORY = "process.memory.usage"
"""Up-down counter, By: resident memory of the agent."""
PROCESS_CPU = "process.cpu.time"
"""Counter, s: processor time of the agent, user and system together."""
MEMORY_AVAILABLE = "system.memory.linux.available"
"""Up-down counter, By: what Linux could give to a new program without swapping."""
FILESYSTEM_UTILIZATION = "system.filesystem.utilization"
"""Gauge, 1: the share of the state folder's file system that is in use."""

MODEL_NAME = "edgewright.model.name"
MODEL_VERSION = "edgewright.model.version"
RELEASE_DIGEST = "edgewright.release.digest"
STAGE = "edgewright.stage"
"""Of a duration: one of `Stage`; `run` where it is absent."""
THROTTLED = "edgewright.throttled"
"""Of a duration: true where the device was slowed down by heat or supply; absent is false."""
ERROR_TYPE = "error.type"
SENSOR = "hw.id"
LOGICAL_CPU = "cpu.logical_number"
SAMPLE_FATE = "edgewright.sample.fate"
DRIFT_SKETCH = "edgewright.drift.sketch"
DRIFT_FIGURE = "edgewright.drift.figure"
FLEET = "edgewright.fleet"
PROFILE = "edgewright.profile"
BOOT = "service.instance.id"
DEVICE = "host.name"

Encoding = Literal["protobuf", "json"]
"""How OTLP is written, see `otlp.py`; a receiver reads either."""
Stage = Literal["queue", "preprocessing", "run", "postprocessing"]
"""`queue`: waiting for the model to be free. `preprocessing`: the caller's input to the model's own form.
`run`: inside the runtime, quantised input to quantised output. `postprocessing`: to the caller's form."""
STAGES: tuple[Stage, ...] = get_args(Stage)
UP_DOWN = frozenset({PROCESS_MEMORY, MEMORY_AVAILABLE})
"""Up-down counters: what they hold now, as a sum since ever, not of the period."""
OF_A_WINDOW = frozenset(
    {
        INFERENCE_DURATION, INFERENCE_ERRORS, REPORT_SEQUENCE, REPORTS_DROPPED, ENERGY, ENERGY_UNCERTAINTY,
        ENERGY_ABOVE_IDLE, ENERGY_ABOVE_IDLE_UNCERTAINTY, POWER_IDLE, SENSOR_PERIOD, ENERGY_ESTIMATED,
        ENERGY_ESTIMATED_ABOVE_IDLE, TEMPERATURE, CPU_FREQUENCY, THROTTLED_TIME, DRIFT_SAMPLES, DRIFT,
    }
)  # fmt: skip
"""What a `TelemetryWindow` is read from; a receiver skips the rest unread."""
