"""The names of the metrics and attributes that a device reports.

Names from the OpenTelemetry semantic conventions where they have one (`hw.*`), ours under `edgewright.`.
"""

from __future__ import annotations

INFERENCE_DURATION = "edgewright.inference.duration"
"""Exponential histogram, seconds: one inference in the runtime, quantised input to quantised output."""
PREPROCESSING_DURATION = "edgewright.preprocessing.duration"
"""Exponential histogram, seconds: one sample of a source to the artifact's raw input."""
FEED_ERRORS = "edgewright.feed.errors"
"""Counter, {error}: times that the device's source gave no input or its sink took no prediction, by `error.type`;
no fault of the model's, and so not among its errors."""
INFERENCE_ERRORS = "edgewright.inference.errors"
"""Counter, {error}: inferences that ended in an error, by `error.type`."""
REPORT_SEQUENCE = "edgewright.report.sequence"
"""Gauge, {report}: grows by one with each payload of a boot, so that a receiver sees gaps and repeats."""
ENERGY = "hw.energy"
"""Counter, joules, from the sensor named in `hw.id`; absent where the device has none."""

MODEL_NAME = "edgewright.model.name"
MODEL_VERSION = "edgewright.model.version"
RELEASE_DIGEST = "edgewright.release.digest"
SENSOR = "hw.id"
FLEET = "edgewright.fleet"
PROFILE = "edgewright.profile"
BOOT = "service.instance.id"
DEVICE = "host.name"
