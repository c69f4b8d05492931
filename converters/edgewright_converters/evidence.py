"""`Evidence`: what a report shows of a conversion beyond its figures: each activation, and where error comes in.

It is gathered only when a report is asked for: the layers' errors take one more run of each model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright.artifact.layout import digest_of
from edgewright.artifact.manifest import DataKind, ModelFormat, Precision
from edgewright_converters.calibration import SampleSet
from edgewright_converters.comparison import decibels
from edgewright_converters.correspondence import carried_over
from edgewright_converters.export import ExportedGraph
from edgewright_converters.float_graph import FloatGraph
from edgewright_converters.graphs import FloatGraphs
from edgewright_converters.ladder import Climb
from edgewright_converters.layer_error import (
    LayerError,
    float_activations,
    layer_errors,
    stored_activations,
)
from edgewright_converters.precision_choice import Choice, Tried
from edgewright_converters.quantise import QuantisedModel

Array = NDArray[Any]
SAMPLES = 8
"""From all over the calibration data: millions of values a tensor are enough for a decibel."""
SAMPLES_OF: Mapping[DataKind, str] = {
    "calibration": "calibration samples",
    "evaluation": "evaluation samples",
    "generated": "generated inputs",
}


@dataclass(frozen=True)
class Activation:
    """One activation of the float graph: what it takes on over the calibration data, and the grid it got."""

    name: str
    operator: str
    """What makes it, as "Conv"; "input" for the model's own."""
    observed: tuple[float, float]
    chosen: tuple[float, float]
    method: str
    grid_db: float
    """Signal to the noise that this grid alone would leave, decibels; predicted from the tensor's histogram."""


@dataclass(frozen=True)
class FileErrors:
    """The error of each activation in one model file, which profiles may share."""

    digest: str
    format: ModelFormat
    precision: Precision
    layers: tuple[LayerError, ...]
    """By name in the ONNX graph where the activation is known there, else by a short one of the file's own."""
    samples: int


@dataclass(frozen=True)
class Evidence:
    """What the report's pictures are drawn from."""

    activations: tuple[Activation, ...]
    """Empty for a model that has no ONNX form: its ranges are true minimum and maximum."""
    files: tuple[FileErrors, ...]
    tried: tuple[Tried, ...] = ()
    """What was tried after the ladder, when the precision of each file was chosen."""
    data: DataKind = "calibration"
    """What it was gathered on: samples, or noise where there were none."""


def gather(
    climbing: Climb | None,
    graphs: FloatGraphs,
    choices: Sequence[Choice],
    samples: SampleSet,
    kind: DataKind,
) -> Evidence:
    """Run each model once more on some of the samples that it was decided on; add what the ladder saw."""
    held = [sample.inputs for sample in samples.spread(SAMPLES)]
    files = []
    for model in (choice.model for choice in choices):
        reference, names = _reference(climbing, graphs, model)
        errors = layer_errors(
            zip(float_activations(reference, held), stored_activations(model, held), strict=True)
        )
        layers = tuple(replace(e, name=names.get(e.name) or _short(e.name)) for e in errors)
        files.append(FileErrors(digest_of(model.data), model.format, model.precision, layers, len(held)))
    tried = tuple(one for choice in choices for one in choice.tried)
    return Evidence(_activations(climbing) if climbing else (), tuple(files), tried, kind)


def _reference(
    climbing: Climb | None, graphs: FloatGraphs, model: QuantisedModel
) -> tuple[FloatGraph | ExportedGraph, dict[str, str]]:
    """The float graph that a model's activations are compared with, and the ONNX names of its tensors.

    Equalised where the model is: equalisation changes what flows between layers, not what comes out.
    """
    graph = climbing.reference if climbing and model.precision == "int8" else graphs.graph
    if model.format == "onnx":
        assert graph is not None
        return graph, {}
    if graph is None or graphs.tflite is None:
        return graphs.exported["tflite"], {}
    tflite = graphs.tflite
    return carried_over(graph, tflite.exported, tflite.found), dict(tflite.found.activations)


def _short(name: str) -> str:
    """The innermost two modules of a name that lists all around an operator, and all operators fused into it."""
    modules = name.split(";")[0].split("/")[-2:]
    return "/".join(module.rsplit(".", 1)[-1] for module in modules) or name


def _activations(climbing: Climb) -> tuple[Activation, ...]:
    graph, decision = climbing.reference, climbing.decision
    found = []
    for name in graph.float_tensors:
        chosen = decision.ranges.get(name)
        if chosen is None or name not in graph.quantised_tensors or name not in climbing.statistics:
            continue
        seen = climbing.statistics[name]
        producer = graph.producers.get(name)
        found.append(
            Activation(
                name,
                producer.op_type if producer else "input",
                seen.range,
                (chosen.low, chosen.high),
                chosen.method,
                decibels(float(np.mean(seen.mean_square)), chosen.error),
            )
        )
    return tuple(found)
