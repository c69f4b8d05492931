"""Cross-layer equalisation: channels rescaled between layers so that each uses its tensor's whole range.

Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.1, with
the ranges of the activations in place of those of the weights before them: with per-channel weights it is the
activations that lose precision. How much of a channel's range moves into the weights after it is the exponent
of Xiao et al. 2023, "SmoothQuant", equation 4, chosen per group of tied tensors by the noise that both would
carry. The float function is unchanged on the calibration data; a bounded activation (ReLU6) only ever has
channels raised up to its bound, so that nothing which passed is cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgewright_converters.float_graph import FloatGraph, WeightLayer, attribute
from edgewright_converters.observation import TensorStatistics
from edgewright_converters.quantise.grid import STEPS, WEIGHT_MAX

Array = NDArray[Any]
EXPONENTS = (0.0, 0.25, 0.5, 0.75, 1.0)
FACTOR_LIMIT = 16.0
"""Bounds a factor: a channel that is nearly dead would otherwise amplify what calibration did not show."""
HEADROOM = 1.5
"""How far past what calibration showed a bounded channel may go before its bound cuts it. Without it the float
function itself lost 10 dB on photos that were not in the calibration data (EfficientNet-Lite0)."""
_TIES = ("Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Dropout", "Identity")


@dataclass
class _Group:
    """Tensors whose channels must be scaled alike, and what makes and takes them."""

    tensors: list[str] = field(default_factory=list)
    producers: list[WeightLayer | onnx.NodeProto] = field(default_factory=list)
    consumers: list[WeightLayer] = field(default_factory=list)
    bound: float = np.inf


def equalise(graph: FloatGraph, stats: Mapping[str, TensorStatistics]) -> FloatGraph:
    """Rescale the channels of every group of tensors that the graph's structure lets be rescaled."""
    weights = dict(graph.weights)
    for group in _groups(graph):
        factors = _factors(group, weights, stats)
        if factors is not None:
            _apply(group, weights, factors)
    return graph.with_weights(weights)


def _groups(graph: FloatGraph) -> Iterable[_Group]:
    """Tied tensors, without those held by a graph input or output or by an operator that we cannot scale."""
    layers = {layer.output: layer for layer in graph.layers}
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    barriers = {value.name for value in (*graph.proto.graph.input, *graph.proto.graph.output)}
    bounds: dict[str, float] = {}
    producers: dict[str, list[WeightLayer | onnx.NodeProto]] = {}
    consumers: dict[str, list[WeightLayer]] = {}
    for node in graph.nodes:
        live = [name for name in node.input if name and name not in graph.weights]
        layer = layers.get(node.output[0])
        if layer is not None and _scalable(layer, graph):
            producers.setdefault(layer.output, []).append(layer)
            consumers.setdefault(layer.input, []).append(layer)
        elif node.op_type == "LayerNormalization" and _has_affine(node, graph):
            producers.setdefault(node.output[0], []).append(node)
            barriers.add(node.input[0])
        elif node.op_type in _TIES or _flattens(node, graph):
            parent[root(live[0])] = root(node.output[0])
        elif node.op_type == "Clip" and (bound := _upper_bound(node, graph)) is not None:
            parent[root(live[0])] = root(node.output[0])
            bounds[node.output[0]] = bound
        elif node.op_type == "Add" and len(live) == 2 and _same_shape(node, graph):
            for name in live:
                parent[root(name)] = root(node.output[0])
        else:
            barriers.update(live)
            barriers.update(node.output)
    members: dict[str, list[str]] = {}
    for name in graph.float_tensors:
        members.setdefault(root(name), []).append(name)
    for tensors in members.values():
        if barriers.isdisjoint(tensors):
            yield _Group(
                tensors,
                [p for name in tensors for p in producers.get(name, ())],
                [c for name in tensors for c in consumers.get(name, ())],
                min((bounds[name] for name in tensors if name in bounds), default=np.inf),
            )


def _scalable(layer: WeightLayer, graph: FloatGraph) -> bool:
    """A layer whose input and output channels can both be scaled: weights of its own, and no groups of many."""
    if any(name and name != layer.bias for name in layer.node.input[2:]):
        return False  # its bias is computed, and would have to be scaled too
    users = graph.consumers[layer.weight]
    if len(users) != 1 or (layer.bias is not None and len(graph.consumers[layer.bias]) != 1):
        return False
    if not graph.changeable(layer.weight, layer.bias):
        return False
    if layer.node.op_type == "ConvTranspose":
        return False
    weight = graph.weights[layer.weight]
    if layer.node.op_type == "Conv" and layer.groups > 1:
        return bool(weight.shape[1] == 1 and weight.shape[0] == layer.groups)
    if layer.node.op_type == "Gemm":
        return not attribute(layer.node, "transA", 0) and attribute(layer.node, "alpha", 1.0) == 1.0
    return weight.ndim == 2 or layer.node.op_type == "Conv"


def _has_affine(node: onnx.NodeProto, graph: FloatGraph) -> bool:
    axis = attribute(node, "axis", -1)
    rank = len(graph.shapes.get(node.input[0], ()))
    constants = [name for name in node.input[1:] if name]
    last = axis in (-1, rank - 1)
    own = all(n in graph.weights and len(graph.consumers[n]) == 1 for n in constants)
    return last and own and graph.changeable(*constants)


def _flattens(node: onnx.NodeProto, graph: FloatGraph) -> bool:
    """[n, c, 1, 1] to [n, c]: the channels stay what they are."""
    if node.op_type not in ("Flatten", "Reshape", "Squeeze"):
        return False
    before, after = graph.shapes.get(node.input[0], ()), graph.shapes.get(node.output[0], ())
    return len(before) > 2 and len(after) == 2 and before[:2] == after and set(before[2:]) == {1}


def _upper_bound(node: onnx.NodeProto, graph: FloatGraph) -> float | None:
    """The upper bound of a Clip from nought, or None for another Clip."""
    low, high = (graph.weights.get(name) for name in (*node.input[1:], "", "")[:2])
    if low is None or float(low) != 0.0:
        return None
    return np.inf if high is None else float(high)


def _same_shape(node: onnx.NodeProto, graph: FloatGraph) -> bool:
    return len({graph.shapes.get(name) for name in (*node.input, *node.output)}) == 1


def _channel_axis(layer: WeightLayer, weight: Array) -> int:
    """The axis of a weight that runs over input channels."""
    if layer.depthwise:
        return 0
    return 1 - layer.channel_axis if weight.ndim == 2 else 1


def _factors(
    group: _Group, weights: Mapping[str, Array], stats: Mapping[str, TensorStatistics]
) -> Array | None:
    """What to multiply each channel by, or None where nothing is to be won."""
    stored = [stats[name] for name in group.tensors if name in stats]
    if not group.producers or not group.consumers or not stored:
        return None
    sizes = {len(s.low) for s in stored}
    if len(sizes) != 1:
        return None
    ranges = np.max([np.maximum(-s.low, s.high) for s in stored], axis=0).astype(np.float64)
    power = np.max([s.mean_square for s in stored], axis=0).astype(np.float64)
    live = ranges > 0
    if not live.any():
        return None
    if np.isfinite(group.bound):
        ranges = np.minimum(ranges * HEADROOM, group.bound)
    top = group.bound if np.isfinite(group.bound) else ranges.max()
    best, least = None, np.inf
    for exponent in EXPONENTS:
        factors = np.ones_like(ranges)
        factors[live] = np.clip((top / ranges[live]) ** exponent, 1.0, FACTOR_LIMIT)
        noise = _noise(group, weights, factors, ranges, power)
        if noise < least * (1 - 1e-6):
            best, least = factors, noise
    return None if best is None or np.all(best == 1.0) else best


def _noise(group: _Group, weights: Mapping[str, Array], factors: Array, ranges: Array, power: Array) -> float:
    """Noise at the consumers' outputs relative to their power, from rounding the tensor and the weights.

    Rounding to steps of Δ has variance Δ²/12 (Widrow 1956); the terms add, being independent.
    """
    step = (factors * ranges).max() / STEPS
    total = 0.0
    for layer in group.consumers:
        taps = _taps(layer, weights[layer.weight])
        energy = np.square(taps).sum(2)
        signal = (energy * power).sum(1)
        activation = (energy / factors**2).sum(1) * step**2 / 12
        rounding = np.zeros_like(activation)
        if not layer.depthwise:
            steps = np.abs(taps / factors[:, None]).max(axis=(1, 2)) / WEIGHT_MAX
            rounding = steps**2 / 12 * taps.shape[2] * (power * factors**2).sum()
        total += float((activation + rounding).sum() / max(signal.sum(), 1e-30))
    return total


def _taps(layer: WeightLayer, weight: Array) -> Array:
    """A weight as [output channels, input channels, kernel taps]; one row over all channels where depthwise."""
    if layer.depthwise:
        return weight.reshape(1, weight.shape[0], -1).astype(np.float64)
    rows = weight.T if weight.ndim == 2 and layer.channel_axis == 1 else weight
    return rows.reshape(*rows.shape[:2], -1).astype(np.float64)


def _apply(group: _Group, weights: dict[str, Array], factors: Array) -> None:
    scale = factors.astype(np.float32)
    for producer in group.producers:
        if isinstance(producer, WeightLayer):
            shape = [1] * weights[producer.weight].ndim
            shape[producer.channel_axis] = -1
            weights[producer.weight] = weights[producer.weight] * scale.reshape(shape)
            if producer.bias is not None:
                weights[producer.bias] = weights[producer.bias] * scale
        else:
            for name in producer.input[1:]:
                if name:
                    weights[name] = weights[name] * scale
    for consumer in group.consumers:
        weight = weights[consumer.weight]
        shape = [1] * weight.ndim
        shape[_channel_axis(consumer, weight)] = -1
        weights[consumer.weight] = weight / scale.reshape(shape)
