"""Static INT8 over true minimum and maximum, without repairs: what the tests compare other precisions with."""

from __future__ import annotations

from edgewright_converters.calibration import SampleSet
from edgewright_converters.execution import Execution
from edgewright_converters.export import ExportedGraph
from edgewright_converters.float_graph import FloatGraph
from edgewright_converters.observation import observe
from edgewright_converters.quantise import QuantisedModel
from edgewright_converters.quantise.activation_range import choose_ranges
from edgewright_converters.quantise.decision import Decision, as_onnx, own_ranges
from edgewright_converters.quantise.quantised_model import ActivationDtype
from edgewright_converters.quantise.tflite_static import quantise_tflite


def static_int8(graph: ExportedGraph, samples: SampleSet, activation: ActivationDtype) -> QuantisedModel:
    """Quantise an exported graph of either format."""
    if graph.format == "tflite":
        return quantise_tflite(graph, own_ranges(graph, (sample.inputs for sample in samples)))
    opened = FloatGraph.of(graph)
    feeds = (opened.feed(sample.inputs) for sample in samples)
    ranges = choose_ranges(observe(Execution(opened), feeds, samples.where), {})
    return as_onnx(Decision(opened, ranges), activation)
