"""`Decision`: how a model is quantised, decided once on its float graph, and the same for every target.

Ranges, repaired weights and the layers left in float go into each target's own quantiser from here, so that the
artifacts of a release agree with each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright_converters.correspondence import Correspondence, carried_over
from edgewright_converters.export import ExportedGraph
from edgewright_converters.float_graph import FloatGraph
from edgewright_converters.quantise.activation_range import ActivationRange
from edgewright_converters.quantise.grid import ActivationGrid, holding_bias
from edgewright_converters.quantise.onnx_static import quantise_onnx
from edgewright_converters.quantise.quantised_model import ActivationDtype, QuantisedModel
from edgewright_converters.quantise.tflite_static import quantise_tflite
from edgewright_converters.tflite_graph import activations, open_tflite

Array = NDArray[Any]
_TFLITE_LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "PAD")
"""Padding is a convolution's own; between integers it would cost two conversions."""
_ONNX_MOVES = ("Relu", "Clip", "MaxPool", "Pad", "Reshape", "Transpose", "Slice", "Squeeze", "Flatten")
"""What is fused with a layer, or moves integers as well as floats."""


@dataclass(frozen=True)
class Decision:
    """A graph with its repaired weights, a range for each activation, and the layers left in float by name."""

    graph: FloatGraph
    ranges: Mapping[str, ActivationRange]
    in_float: frozenset[str] = frozenset()
    layers_only: bool = False
    """Whether all but convolutions and products by constant matrices stays in float. Neither runtime has fast
    INT8 kernels for the rest: of LiteRT's INT8 models measured, a CNN with hard-swish went from 0.14 to 1.13 times
    float's speed with it, a vision transformer from 0.21 to 1.25 (one thread, x86)."""
    symmetric: bool = False
    """Whether the target's activations have nought in the middle of their grids: then so have all ranges."""
    trained: bool = False
    """Whether the weights and ranges have been fine-tuned."""
    own_ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Of TFLite activations that are no tensor of `graph`, where they are others than the float model's."""

    def storable(self) -> Decision:
        """The decision with every bias small enough for 32 bits."""
        changed = {}
        bounds = self.bounds()
        for layer in self.graph.layers:
            if (
                layer.bias is None
                or layer.input not in bounds
                or not self.graph.changeable(layer.weight, layer.bias)
            ):
                continue
            bias, weight = self.graph.weights[layer.bias], self.graph.weights[layer.weight]
            if bias.size == weight.shape[layer.channel_axis]:
                scale = ActivationGrid.over(*bounds[layer.input]).scale
                held = holding_bias(weight, bias, layer.channel_axis, scale)
                if held is not weight:
                    changed[layer.weight] = held
        return replace(self, graph=self.graph.with_weights(changed)) if changed else self

    def bounds(self) -> dict[str, tuple[float, float]]:
        """Low and high of each activation."""
        ends = {name: (chosen.low, chosen.high) for name, chosen in self.ranges.items()}
        if not self.symmetric:
            return ends
        return {name: (-max(-low, high), max(-low, high)) for name, (low, high) in ends.items()}

    def stored(self) -> dict[str, tuple[float, float]]:
        """Low and high of each activation that is held in INT8: with `layers_only`, what layers take and give."""
        bounds = self.bounds()
        if not self.layers_only:
            return bounds
        held = {name for layer in self.graph.layers for name in (layer.input, layer.output)}
        return {name: ends for name, ends in bounds.items() if name in held}


@dataclass(frozen=True)
class TfliteTarget:
    """The float TFLite graph, what in it is which part of the float graph, and ranges of what is in it alone."""

    exported: ExportedGraph
    found: Correspondence
    own_ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def as_onnx(decision: Decision, activation: ActivationDtype, *, symmetric: bool = False) -> QuantisedModel:
    """The decision as an ONNX model. Raises `ConversionError`."""
    in_float = decision.in_float
    if decision.layers_only:
        layers = {layer.name for layer in decision.graph.layers}
        kept = {
            node.name for node in decision.graph.nodes if node.name in layers or node.op_type in _ONNX_MOVES
        }
        in_float |= {node.name for node in decision.graph.nodes} - kept
    return quantise_onnx(
        decision.storable().graph.exported(),
        decision.bounds(),
        activation,
        symmetric=symmetric,
        in_float=in_float,
        rounded_scores=decision.trained,
    )


def as_tflite(decision: Decision, target: TfliteTarget) -> QuantisedModel:
    """The decision as a TFLite model. Raises `ConversionError`."""
    bounds = decision.bounds()
    ranges = {**target.own_ranges, **decision.own_ranges}
    ranges.update({name: bounds[mine] for name, mine in target.found.activations.items() if mine in bounds})
    opened = open_tflite(target.exported)
    places = {
        place.tensor
        for layer in decision.graph.layers
        if layer.name in decision.in_float
        for place in target.found.constants.get(layer.weight, ())
    }
    in_float = {
        opened.names[op.outputs[0]]
        for op in opened.operators
        if op.outputs
        and (places & set(op.inputs) or (decision.layers_only and op.kind not in _TFLITE_LAYERS))
    }
    return quantise_tflite(
        carried_over(decision.storable().graph, target.exported, target.found), ranges, frozenset(in_float)
    )


def with_own_ranges(
    decision: Decision, target: TfliteTarget, samples: Iterable[Mapping[str, Array]]
) -> Decision:
    """The decision with the ranges of what is in the TFLite graph alone as its weights have them now."""
    if not target.found.unmatched:
        return decision
    graph = carried_over(decision.graph, target.exported, target.found)
    return replace(decision, own_ranges=own_ranges(graph, samples, target.found.unmatched))


def own_ranges(
    graph: ExportedGraph, samples: Iterable[Mapping[str, Array]], wanted: frozenset[str] | None = None
) -> dict[str, tuple[float, float]]:
    """True minimum and maximum of TFLite activations by name, over all samples; of all where none is named.

    The stock calibration averages them over samples, which cuts off what the model's output needs most: 83.6 %
    against 94.5 % top-class agreement on EfficientNet-Lite0.
    """
    opened = open_tflite(graph)
    ranges: dict[str, tuple[float, float]] = {}
    for made in activations(graph, samples, opened):
        for index, value in made.items():
            name = opened.names[index]
            if value.size and (wanted is None or name in wanted):
                low, high = ranges.get(name, (np.inf, -np.inf))
                ranges[name] = (min(low, float(value.min())), max(high, float(value.max())))
    return ranges
