"""`VerifiedModel`: the quantised model as the target's runtime executes it, against the float source.

Nothing here is simulated: outputs, golden vectors and latencies come from the runtime that devices use.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgewright.artifact.golden import GoldenVectors
from edgewright.artifact.manifest import AccuracyReport, LatencyFigure
from edgewright.errors import ConversionError
from edgewright.latency_benchmark import benchmark_interleaved
from edgewright.runtime.model import Model
from edgewright.runtime.quantised_io import raw_input, real_output
from edgewright.runtime.session import open_session
from edgewright_converters.calibration import SampleSet
from edgewright_converters.export import ExportedGraph
from edgewright_converters.quantise import QuantisedModel
from edgewright_converters.silence import silenced
from edgewright_converters.statistics import paired_difference, proportion, sqnr_db

Array = NDArray[Any]
GOLDEN_VECTORS = 4
"""Enough to tell a wrong kernel or a wrong file; more would only weigh on the artifact."""
LATENCY_SECONDS = 1.0
BROKEN_SQNR_DB = 3.0
"""Below this the noise carries half of the signal's power: no metric can rescue such outputs."""


@dataclass(frozen=True)
class VerifiedModel:
    """A quantised model with the evidence about it."""

    model: QuantisedModel
    accuracy: AccuracyReport
    golden: GoldenVectors
    runtime: str
    latencies: tuple[LatencyFigure, ...]
    float_bytes: int


def verify(
    quantised: QuantisedModel,
    graph: ExportedGraph,
    samples: SampleSet,
    reference: Mapping[str, Array],
    data: Literal["evaluation", "calibration"],
) -> VerifiedModel:
    """Execute the quantised model on every sample and compare it with `reference`, the float outputs.

    Raises `ConversionError` where its outputs have nothing left of the float model's.
    """
    with tempfile.TemporaryDirectory() as folder:
        int8 = _model(Path(folder) / "int8", quantised.format, quantised.data, quantised)
        float32 = _model(Path(folder) / "float32", graph.format, graph.data, graph)
        raw_inputs, raw_outputs = _execute(int8, samples)
        runtime = int8.runtime
        latencies = tuple(b.figure() for b in benchmark_interleaved([float32, int8], seconds=LATENCY_SECONDS))
    report = _report(quantised, samples, reference, raw_outputs, runtime, data)
    golden = GoldenVectors(
        {name: np.stack(rows[:GOLDEN_VECTORS]) for name, rows in raw_inputs.items()},
        {name: np.stack(rows[:GOLDEN_VECTORS]) for name, rows in raw_outputs.items()},
    )
    return VerifiedModel(quantised, report, golden, runtime, latencies, len(graph.data))


def _model(path: Path, model_format: str, data: bytes, specs: QuantisedModel | ExportedGraph) -> Model:
    path = path.with_suffix(f".{model_format}")
    path.write_bytes(data)
    with silenced():
        session = open_session(path, specs.format)
    return Model(session, inputs=specs.inputs, outputs=specs.outputs)


def _execute(model: Model, samples: SampleSet) -> tuple[dict[str, list[Array]], dict[str, list[Array]]]:
    """Raw inputs (of the golden vectors alone) and raw outputs (of every sample) by name."""
    raw_inputs: dict[str, list[Array]] = {spec.name: [] for spec in model.inputs}
    raw_outputs: dict[str, list[Array]] = {spec.name: [] for spec in model.outputs}
    for index, sample in enumerate(samples):
        raw = {spec.name: raw_input(sample.inputs[spec.name], spec) for spec in model.inputs}
        for name, array in model.run_raw(raw).items():
            raw_outputs[name].append(array.copy())
        if index < GOLDEN_VECTORS:
            for name, array in raw.items():
                raw_inputs[name].append(array)
    return raw_inputs, raw_outputs


def _report(
    quantised: QuantisedModel,
    samples: SampleSet,
    reference: Mapping[str, Array],
    raw_outputs: Mapping[str, list[Array]],
    runtime: str,
    data: Literal["evaluation", "calibration"],
) -> AccuracyReport:
    actual = {
        spec.name: np.concatenate([real_output(row, spec) for row in raw_outputs[spec.name]])
        for spec in quantised.outputs
    }
    noise = {name: sqnr_db(reference[name], actual[name]) for name in actual}
    for name, decibels in noise.items():
        if decibels < BROKEN_SQNR_DB:
            problem = (
                f"the INT8 {quantised.format} model's output '{name}' is broken (SQNR {decibels:.1f} dB)"
            )
            raise ConversionError(
                problem, remedy="check that the calibration data is like the data in the field"
            )
    scores = classification_output(reference)
    agreement = float_accuracy = artifact_accuracy = change = None
    if scores is not None:
        expected, got = reference[scores].argmax(-1), actual[scores].argmax(-1)
        agreement = proportion(int(np.sum(expected == got)), samples.count)
        if samples.labels is not None:
            right, still_right = expected == samples.labels, got == samples.labels
            float_accuracy = proportion(int(right.sum()), samples.count)
            artifact_accuracy = proportion(int(still_right.sum()), samples.count)
            change = paired_difference(right, still_right)
    return AccuracyReport(
        executed_by=runtime,
        data=data,
        samples=samples.count,
        sqnr_db=noise,
        agreement=agreement,
        float_accuracy=float_accuracy,
        artifact_accuracy=artifact_accuracy,
        change=change,
    )


def classification_output(outputs: Mapping[str, Array]) -> str | None:
    """The output that holds one score a class: the only one, two axes, more than one column."""
    if len(outputs) != 1:
        return None
    ((name, array),) = outputs.items()
    is_scores = array.ndim == 2 and array.shape[1] > 1 and np.issubdtype(array.dtype, np.floating)
    return name if is_scores else None
