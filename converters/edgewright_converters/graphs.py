"""`FloatGraphs`: the float model in the forms that a conversion needs, before anything is quantised.

Quantisation is decided on the ONNX graph, whichever format is wanted. A model that has no ONNX form is still
converted to TFLite, by the ranges of its TFLite graph and without repairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from edgewright.artifact.manifest import ModelFormat
from edgewright.errors import ConversionError
from edgewright_converters.attention_mask import cut_masks
from edgewright_converters.calibration import Sample
from edgewright_converters.correspondence import correspond
from edgewright_converters.execution import Execution
from edgewright_converters.export import ExportedGraph, UnsupportedOperatorError, export
from edgewright_converters.float_graph import FloatGraph
from edgewright_converters.optimise import optimise
from edgewright_converters.quantise.decision import TfliteTarget, own_ranges
from edgewright_converters.source import SourceModel
from edgewright_converters.torch_graph import TorchGraph
from edgewright_converters.torch_operators import OPERATORS
from edgewright_converters.trace import exported_program

Array = NDArray[Any]


@dataclass(frozen=True)
class FloatGraphs:
    """The optimised graphs by format; `graph` and `tflite` are None where the model does not have them."""

    exported: Mapping[ModelFormat, ExportedGraph]
    graph: FloatGraph | None
    tflite: TfliteTarget | None


def float_graphs(
    model: SourceModel,
    examples: Sequence[Mapping[str, Array]],
    outputs: Mapping[str, Array],
    wanted: Sequence[ModelFormat],
) -> FloatGraphs:
    """Export to what is wanted, and to ONNX in any case. Raises `ConversionError` for a format wanted in vain."""
    exported: dict[ModelFormat, ExportedGraph] = {}
    traced = None if model.onnx_path is not None else exported_program(model, examples)
    for model_format in ("onnx", "tflite"):
        if model_format not in wanted and model_format != "onnx":
            continue
        try:
            source = model
            if model_format == "tflite" and model.onnx_path is not None:
                source = as_module(model, exported["onnx"])
            exported[model_format] = optimise(export(source, examples, outputs, model_format, traced))
        except UnsupportedOperatorError as error:
            if model_format in wanted:
                raise _with_the_other(error, model, examples, outputs, model_format) from None
        except ConversionError:
            if model_format in wanted:
                raise
    exported = cut_masks(exported, examples)
    graph = FloatGraph.of(exported["onnx"]) if "onnx" in exported else None
    tflite = exported.get("tflite")
    if graph is None or tflite is None:
        return FloatGraphs(exported, graph, None)
    found = correspond(Execution(graph), tflite, examples)
    unknown = {
        name
        for layer in graph.layers
        if not found.covers(layer.weight, layer.bias)
        for name in (layer.weight, layer.bias)
        if name is not None
    } | {name for name in graph.scales if not found.covers(name)}
    unshared = graph.quantised_tensors - set(found.activations.values())
    graph = replace(graph, fixed=frozenset(unknown), unshared=unshared)
    return FloatGraphs(exported, graph, TfliteTarget(tflite, found))


def as_module(model: SourceModel, graph: ExportedGraph) -> SourceModel:
    """An ONNX source as the PyTorch module that LiteRT's converter takes; `graph` is its optimised form.

    Raises `UnsupportedOperatorError`. What the module computes is checked where it is exported.
    """
    found = FloatGraph.of(graph)
    for node in found.nodes:
        if node.op_type not in OPERATORS:
            raise UnsupportedOperatorError(
                f"operator {node.op_type} of node '{node.name}' is not one that Edgewright carries over to TFLite",
                where=model.label,
                remedy="convert from the PyTorch source",
            )
    return replace(model, module=TorchGraph(found).eval(), onnx_path=None)


def _with_the_other(
    error: UnsupportedOperatorError,
    model: SourceModel,
    examples: Sequence[Mapping[str, Array]],
    outputs: Mapping[str, Array],
    lacking: ModelFormat,
) -> UnsupportedOperatorError:
    """The error, saying whether the other format takes the operator: it is tried."""
    other: ModelFormat = "tflite" if lacking == "onnx" else "onnx"
    try:
        export(model, examples, outputs, other)
    except ConversionError:
        remedy = f"{error.remedy}: {other} does not take it either"
    else:
        remedy = f"{error.remedy}, or ask for --format {other}, which takes it"
    return UnsupportedOperatorError(error.problem, where=error.where, remedy=remedy)


def with_own_ranges(graphs: FloatGraphs, samples: Iterable[Sample]) -> FloatGraphs:
    """The graphs with the ranges of the TFLite activations that no tensor of the ONNX graph stands for."""
    tflite = graphs.tflite
    if tflite is None or not tflite.found.unmatched:
        return graphs
    inputs = (sample.inputs for sample in samples)
    ranges = own_ranges(tflite.exported, inputs, tflite.found.unmatched)
    return replace(graphs, tflite=replace(tflite, own_ranges=ranges))
