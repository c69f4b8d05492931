"""High-bias absorption: what a channel never falls below moves from one layer's bias into the next one's.

Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.1.3, with
the least value that a channel takes on over the calibration data in place of three deviations below its mean. A
channel that stays above c before a ReLU passes through it unchanged, so the layer before may give c less and the
layer after add what its weights make of c; the tensor between then needs c less of its range. The float function
is unchanged on the calibration data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgewright_converters.float_graph import FloatGraph, WeightLayer, attribute
from edgewright_converters.observation import TensorStatistics

Array = NDArray[Any]


def absorb_high_biases(graph: FloatGraph, statistics: Mapping[str, TensorStatistics]) -> FloatGraph:
    """Shift every channel that can be shifted; the same graph object where there is none."""
    makers = {layer.output: layer for layer in graph.layers}
    takers: dict[str, list[WeightLayer]] = {}
    for layer in graph.layers:
        takers.setdefault(layer.input, []).append(layer)
    changed: dict[str, Array] = {}
    for node in graph.nodes:
        maker = makers.get(node.input[0]) if node.op_type == "Relu" else None
        after = takers.get(node.output[0], []) if maker is not None else []
        if maker is None or not _can_give(graph, maker, node) or not _can_take(graph, node, after):
            continue
        least = np.maximum(statistics[maker.output].low, 0.0).astype(np.float32)
        if not least.any():
            continue
        assert maker.bias is not None
        changed[maker.bias] = changed.get(maker.bias, graph.weights[maker.bias]) - least
        for layer in after:
            assert layer.bias is not None
            bias = changed.get(layer.bias, graph.weights[layer.bias])
            changed[layer.bias] = (bias + made_of(layer, graph.weights[layer.weight], least)).astype(
                np.float32
            )
    return graph.with_weights(changed) if changed else graph


def _can_give(graph: FloatGraph, maker: WeightLayer, activation: onnx.NodeProto) -> bool:
    alone = len(graph.consumers[maker.output]) == 1 and maker.output not in graph.output_names
    own = maker.bias is not None and maker.bias in maker.node.input and graph.changeable(maker.bias)
    return alone and own and activation.output[0] not in graph.output_names


def _can_take(graph: FloatGraph, activation: onnx.NodeProto, layers: list[WeightLayer]) -> bool:
    """Whether every use is a layer whose bias can hold the shift; padding would put noughts where c is meant."""
    return len(layers) == len(graph.consumers.get(activation.output[0], [])) > 0 and all(
        layer.node.op_type in ("Conv", "Gemm")
        and layer.bias in layer.node.input
        and graph.changeable(layer.bias)
        and not any(attribute(layer.node, "pads", ()))
        and attribute(layer.node, "auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
        and not attribute(layer.node, "transA", 0)
        for layer in layers
    )


def knows_inputs(layer: WeightLayer, weight: Array) -> bool:
    """Whether `made_of` can tell which weights belong to an input channel."""
    return layer.node.op_type == "Conv" or weight.ndim == 2


def made_of(layer: WeightLayer, weight: Array, shift: Array) -> Array:
    """What a layer makes of a constant in each input channel."""
    if weight.ndim == 2:
        product: Array = weight @ shift if layer.channel_axis == 0 else shift @ weight
        return product
    taps = weight.reshape(*weight.shape[:2], -1).sum(axis=2)
    grouped = taps.reshape(layer.groups, -1, taps.shape[1])
    result: Array = (grouped @ shift.reshape(layer.groups, -1, 1)).reshape(-1)
    return result
