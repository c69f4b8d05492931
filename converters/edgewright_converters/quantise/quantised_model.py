"""`QuantisedModel`: the model at a precision in its target's format, before it is verified."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgewright.artifact.manifest import ModelFormat, Precision, TensorSpec
from edgewright.errors import ConversionError
from edgewright_converters.export import ExportedGraph

ActivationDtype = Literal["uint8", "int8"]


@dataclass(frozen=True)
class QuantisedModel:
    """A serialised model; `inputs` and `outputs` say how the file stores what callers pass and get."""

    format: ModelFormat
    precision: Precision
    data: bytes
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def quantise_as(graph: ExportedGraph, precision: Precision) -> QuantisedModel:
    """The graph at a precision that takes no calibration. Raises `ConversionError`."""
    if precision == "float32":
        return QuantisedModel(graph.format, precision, graph.data, graph.inputs, graph.outputs)
    if precision == "float16":
        from edgewright_converters.quantise.half import quantise_half

        return quantise_half(graph)
    if precision == "int8-dynamic":
        from edgewright_converters.quantise.dynamic import quantise_dynamic

        return quantise_dynamic(graph)
    if precision == "int8":
        raise ConversionError("static INT8 takes calibrated ranges", remedy="call quantise with them")
    from edgewright_converters.quantise.weight_only import quantise_weights

    return quantise_weights(graph, 4 if precision == "int4-weights" else 8)
