"""`VerifiedModel`: the quantised model as the target's runtime executes it, against the float source.

Nothing here is simulated: outputs, golden vectors, latencies and memory come from the runtime that devices use.
The evaluation data is passed over once, whatever the number of models, and is never held.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright.artifact.golden import GoldenVectors
from edgewright.artifact.manifest import AccuracyReport, DataKind, DriftReference, LatencyFigure
from edgewright.errors import ArtifactError, ConversionError, DataError
from edgewright.latency_benchmark import host_processor, interleaved_seconds, summary
from edgewright.runtime.memory import PeakMemory, measure_peak_memory
from edgewright.runtime.model import Model
from edgewright.runtime.quantised_io import raw_input, real_output
from edgewright.runtime.session import open_session, runtimes_for
from edgewright.telemetry.sketcher import Sketcher
from edgewright_converters.calibration import Sample
from edgewright_converters.comparison import Comparison, classification_output
from edgewright_converters.export import ExportedGraph
from edgewright_converters.operators import ExecutedOperator, executed_operators
from edgewright_converters.quantise import QuantisedModel
from edgewright_converters.silence import silenced
from edgewright_converters.statistics import median_interval_in_turn

Array = NDArray[Any]
Reference = Callable[[Mapping[str, Array]], Mapping[str, Array]]
"""The float model: one sample by input name to its outputs by name."""
GOLDEN_VECTORS = 4
"""Enough to tell a wrong kernel or a wrong file; more would only weigh on the artifact."""
LATENCY_SECONDS = 1.0


@dataclass(frozen=True)
class SpeedUp:
    """How many times as fast as float, over pairs taken in turn, with the 95 % interval of the median."""

    ratio: float
    low: float
    high: float
    pairs: int


@dataclass(frozen=True)
class Compared:
    """How a quantised model's outputs compare with the float model's, and its first raw inputs and outputs."""

    accuracy: AccuracyReport
    golden: GoldenVectors
    runtime: str
    drift_reference: DriftReference | None


@dataclass(frozen=True)
class VerifiedModel:
    """A quantised model with the evidence about it."""

    model: QuantisedModel
    accuracy: AccuracyReport
    golden: GoldenVectors
    runtime: str
    latencies: tuple[LatencyFigure, ...]
    float_bytes: int
    speedup: SpeedUp | None = None
    operators: tuple[ExecutedOperator, ...] = ()
    memory: PeakMemory | None = None
    drift_reference: DriftReference | None = None


def compare(
    models: Sequence[QuantisedModel],
    samples: Iterable[Sample],
    reference: Reference,
    data: DataKind,
) -> list[Compared]:
    """Execute every model and the float one once on each sample, in one pass over the samples.

    Raises `DataError` for a label beyond the model's classes, `ConversionError` for a float output that is not
    finite.
    """
    with tempfile.TemporaryDirectory() as folder:
        running = [_Running(open_specs(Path(folder) / str(i), model)) for i, model in enumerate(models)]
        for index, sample in enumerate(samples):
            expected = reference(sample.inputs)
            _check_sample(index, expected, sample.label, data)
            for one in running:
                one.take(sample, expected)
        if not running or running[0].comparison is None:
            raise DataError("there is no sample to verify on")
        return [one.result(data) for one in running]


def verify(
    models: Sequence[tuple[QuantisedModel, ExportedGraph]],
    samples: Iterable[Sample],
    reference: Reference,
    data: DataKind,
) -> list[VerifiedModel]:
    """Compare quantised models, each with its float graph, in one pass; then measure each against that graph."""
    compared = compare([model for model, _ in models], samples, reference, data)
    return [_measured(*pair, one) for pair, one in zip(models, compared, strict=True)]


@dataclass
class _Running:
    """One model while the samples pass by."""

    model: Model
    comparison: Comparison | None = None
    sketcher: Sketcher | None = None
    raw_inputs: list[dict[str, Array]] = field(default_factory=list)
    raw_outputs: list[dict[str, Array]] = field(default_factory=list)

    def take(self, sample: Sample, expected: Mapping[str, Array]) -> None:
        raw = {spec.name: raw_input(sample.inputs[spec.name], spec) for spec in self.model.inputs}
        outputs = self.model.run_raw(raw)
        if len(self.raw_inputs) < GOLDEN_VECTORS:
            self.raw_inputs.append({name: array.copy() for name, array in raw.items()})
            self.raw_outputs.append({name: array.copy() for name, array in outputs.items()})
        if self.comparison is None or self.sketcher is None:
            scores = classification_output(expected)
            self.comparison = Comparison(scores)
            self.sketcher = Sketcher(self.model.inputs, self.model.outputs, scores)
        in_order = [outputs[spec.name] for spec in self.model.outputs]
        self.sketcher.add(self.sketcher.glimpse(list(raw.values()), in_order))
        real = {spec.name: real_output(outputs[spec.name], spec) for spec in self.model.outputs}
        self.comparison.add(expected, real, sample.label)

    def result(self, data: DataKind) -> Compared:
        assert self.comparison is not None and self.sketcher is not None
        sketch = self.sketcher.take()
        assert sketch is not None
        return Compared(
            self.comparison.report(self.model.runtime, data),
            GoldenVectors(_stacked(self.raw_inputs), _stacked(self.raw_outputs)),
            self.model.runtime,
            # Everything in the field would have drifted from noise.
            DriftReference(data=data, sketch=sketch) if data != "generated" else None,
        )


def _check_sample(index: int, expected: Mapping[str, Array], label: int | None, data: str) -> None:
    for name, array in expected.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            problem = f"the float model's output '{name}' is not finite for sample {index}"
            remedy = "leave such samples out, or mend the model"
            raise ConversionError(problem, where=f"{data} data", remedy=remedy)
    if label is None:
        return
    scores = classification_output(expected)
    if scores is None:
        raise DataError(
            f"the {data} data has labels, but the model's output is no single score a class",
            remedy="leave 'y' out",
        )
    classes = expected[scores].shape[1]
    if label >= classes:
        problem = f"label {label} is out of range: the model scores {classes} classes"
        raise DataError(problem, where=f"sample {index} of the {data} data")


def _measured(quantised: QuantisedModel, graph: ExportedGraph, compared: Compared) -> VerifiedModel:
    first = {name: rows[0] for name, rows in compared.golden.inputs.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8"
        models = [open_specs(Path(folder) / "float32", graph), open_specs(path, quantised)]
        times = interleaved_seconds(models, seconds=LATENCY_SECONDS)
        where = host_processor()
        float_figure, figure = (
            summary(model, taken, where).figure() for model, taken in zip(models, times, strict=True)
        )
        # The file alone does not tell how it computes where its inputs and outputs are float.
        figure = figure.model_copy(update={"precision": quantised.precision})
        ratios = [float32 / int8 for float32, int8 in zip(*times, strict=True)]
        try:
            memory = measure_peak_memory(path.with_suffix(f".{quantised.format}"))
        except ArtifactError as error:
            raise ConversionError(
                f"the quantised model does not run in a process of its own: {error}"
            ) from None
    return VerifiedModel(
        quantised,
        compared.accuracy,
        compared.golden,
        compared.runtime,
        (float_figure, figure),
        len(graph.data),
        SpeedUp(*median_interval_in_turn(ratios), pairs=len(ratios)),
        executed_operators(quantised, graph, first),
        memory,
        compared.drift_reference,
    )


def open_specs(path: Path, specs: QuantisedModel | ExportedGraph) -> Model:
    path = path.with_suffix(f".{specs.format}")
    path.write_bytes(specs.data)
    allowed = runtimes_for(specs.format, specs.precision) if isinstance(specs, QuantisedModel) else None
    with silenced():
        session = open_session(path, specs.format, allowed=allowed)
    return Model(session, inputs=specs.inputs, outputs=specs.outputs)


def _stacked(rows: list[dict[str, Array]]) -> dict[str, Array]:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
