from __future__ import annotations

import time

import numpy as np
import pytest

from conftest import tiny_golden, tiny_manifest, tiny_onnx
from edgewright.artifact.manifest import ArtifactManifest, Classification, DriftReference
from edgewright.telemetry.sketch import DataSketch
from edgewright.telemetry.sketcher import Sketcher
from edgewright.telemetry.window import TelemetryWindow, decode_otlp
from edgewright_agent import drift
from edgewright_agent.drift import DriftWatch
from edgewright_agent.exporter import Attributes, Exporter

MODEL = Attributes("sorter", "1.0.0", f"sha256:{'1' * 64}")


def manifest(reference: DataSketch | None = None) -> ArtifactManifest:
    known = None if reference is None else DriftReference(data="evaluation", sketch=reference)
    return tiny_manifest(tiny_onnx(), tiny_golden()).model_copy(
        update={"postprocessing": Classification(output="y"), "drift_reference": known}
    )


def reference(first_class_share: float) -> DataSketch:
    about = manifest()
    sketcher = Sketcher(about.inputs, about.outputs, "y")
    for index in range(200):
        raw = inference(0 if index < 200 * first_class_share else 2)
        sketcher.add(sketcher.glimpse(*raw))
    sketch = sketcher.take()
    assert sketch is not None
    return sketch


def inference(top: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    spec = manifest().inputs[0]
    inputs = np.full(spec.shape, 20, spec.dtype)
    outputs = np.zeros(manifest().outputs[0].shape, manifest().outputs[0].dtype)
    outputs[0, top] = 90
    return [inputs], [outputs]


def exporter() -> Exporter:
    return Exporter(fleet="plant", device="line-3", profile="x86-64-gateway", boot="b0")


def sent(watch: DriftWatch, *, last: bool = True, now_s: float = 0.0) -> TelemetryWindow:
    one = exporter()
    one.record(MODEL, 0.001)
    watch.report(one, now_s, last=last)
    (window,) = decode_otlp(one.collect())
    return window


ALL = 1 << 62
"""Samples of a sketch for which every inference is looked at."""


def seen(watch: DriftWatch, tops: list[int]) -> None:
    for top in tops:
        watch.observe(*inference(top))
        watch.add_up()


def test_a_window_says_how_far_the_data_is_from_the_reference() -> None:
    watch = DriftWatch(manifest(reference(0.5)), MODEL, samples=ALL)
    seen(watch, [0, 2] * 50)
    same = sent(watch)
    assert same.sketch is not None and same.sketch.classes[0] == same.sketch.classes[2] == 50
    assert same.drift is not None and same.drift.samples == 100
    assert same.drift.class_psi == pytest.approx(0, abs=0.02)
    seen(watch, [2] * 100)
    drifted = sent(watch)
    assert drifted.drift is not None and drifted.drift.class_psi is not None and drifted.drift.class_psi > 1


def test_without_a_reference_the_sketch_is_sent_alone() -> None:
    watch = DriftWatch(manifest(), MODEL, samples=ALL)
    seen(watch, [1])
    window = sent(watch)
    assert window.sketch is not None and window.drift is None


def test_a_sketch_arrives_though_nothing_was_inferred_since_the_last_payload() -> None:
    watch = DriftWatch(manifest(), MODEL, samples=ALL)
    seen(watch, [1])
    one = exporter()
    watch.report(one, 0.0, last=True)
    (window,) = decode_otlp(one.collect())
    assert window.latency.count == 0 and window.sketch is not None


def test_without_an_inference_there_is_no_sketch() -> None:
    assert sent(DriftWatch(manifest(), MODEL, samples=ALL)).sketch is None


def test_a_sketch_waits_for_its_period_unless_it_is_the_last() -> None:
    watch = DriftWatch(manifest(), MODEL, period_s=60, samples=ALL)
    seen(watch, [1, 1])
    now_s = time.monotonic()
    assert sent(watch, last=False, now_s=now_s + 10).sketch is None
    window = sent(watch, last=False, now_s=now_s + 61)
    assert window.sketch is not None and window.sketch.samples == 2


def test_of_many_inferences_so_many_a_period_are_looked_at() -> None:
    watch = DriftWatch(manifest(), MODEL, period_s=10, samples=40)
    raw = inference(1)
    start = time.monotonic()
    for _ in range(20_000):
        watch.observe(*raw)
    seconds = time.monotonic() - start
    window = sent(watch)
    assert window.sketch is not None and 1 <= window.sketch.samples <= 1 + seconds / 0.25


def test_what_nobody_adds_up_does_not_grow() -> None:
    watch = DriftWatch(manifest(), MODEL, samples=ALL)
    for _ in range(1000):
        watch.observe(*inference(1))
    window = sent(watch)
    assert window.sketch is not None and window.sketch.samples == drift.MOST_PENDING


def test_a_caller_may_use_its_arrays_again() -> None:
    watch = DriftWatch(manifest(), MODEL, samples=ALL)
    inputs, outputs = inference(1)
    watch.observe(inputs, outputs)
    outputs[0][:] = 0
    outputs[0][0, 3] = 90
    window = sent(watch)
    assert window.sketch is not None and window.sketch.classes.index(1) == 1
