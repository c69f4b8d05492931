"""`Expectation`: what the tensors of a float graph are expected to take on, where there is no data to show it.

Noise is walked through the graph, and each tensor that a batch norm made is brought to the mean and deviation that
the norm gives it, so that all that follows (activations, sums, pools, layers without a norm) sees inputs such as
the network's own data gives. What a normal distribution tells exactly is taken from it: the range β ± 6γ of a
norm's output, and the mean of what a ReLU or ReLU6 makes of it (Nagel et al. 2019, sections 4.2.1 and 5). The
model's outputs reach further for real data than for any noise (the winning class): their deviation is followed
through the last layer's weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgewright_converters.batch_norm import ChannelNormals, Normal
from edgewright_converters.execution import Execution, Step, side_by_side
from edgewright_converters.float_graph import FloatGraph, WeightLayer
from edgewright_converters.observation import TensorStatistics
from edgewright_converters.quantise.analytic_bias import clipped
from edgewright_converters.quantise.bias_absorption import knows_inputs, made_of

Array = NDArray[Any]
DEVIATIONS = 6.0
"""How far from its mean a channel is taken to reach: n of Nagel et al. 2019, section 5."""
OUTPUT_DEVIATIONS = 10.0
"""The same for the model's outputs: the features of a class go together, which the deviation of their sum taken as
independent leaves out. A classifier's winning score lay 5 to 10 of them out on the models measured."""
_MEANS = ("AveragePool", "Flatten", "GlobalAveragePool", "Identity", "ReduceMean", "Reshape", "Squeeze")
"""Means over positions, and layout. Between images a mean deviates by as much as one position does, at most, and
never leaves its range; noise, of which all images look alike, cannot tell."""
_BELOW = ("Gelu", "HardSwish")
"""Activations that a positive input bounds."""


@dataclass(frozen=True)
class Expectation:
    """By tensor: range and power of each channel, and its mean."""

    statistics: Mapping[str, TensorStatistics]
    means: Mapping[str, Array]


def expect(
    execution: Execution, normals: ChannelNormals, samples: Sequence[Mapping[str, Array]]
) -> Expectation:
    """Walk the samples, which are by names in the graph, side by side through it."""
    graph = execution.graph
    wanted = set(graph.float_tensors)
    live: dict[str, list[Array]] = {name: [sample[name] for sample in samples] for name in samples[0]}
    statistics: dict[str, TensorStatistics] = {}
    means: dict[str, Array] = {}

    def note(name: str) -> None:
        if name in wanted and live[name][0].size:
            rows = _channels(live[name], graph.channel_axes[name])
            means[name] = rows.mean(1)
            statistics[name] = TensorStatistics(
                rows.min(1), rows.max(1), np.square(rows, dtype=np.float64).mean(1)
            )

    layers = {layer.output: layer for layer in graph.layers}
    spread: dict[str, Array] = {}
    reach: dict[str, tuple[Array, Array]] = {}
    for name in live:
        note(name)
    for step in execution.steps:
        _advance(step, graph, live)
        node = step.node
        for name in step.outputs:
            if name in normals:
                live[name] = _brought_to(normals[name], live[name], graph.channel_axes[name])
            note(name)
            if name not in statistics:
                continue
            seen = statistics[name]
            spread[name] = np.sqrt(np.maximum(seen.mean_square - means[name] ** 2, 0.0))
            known = _known(node, graph, normals)
            if known is not None:
                exact = clipped(*known)
                means[name], spread[name] = exact.mean, exact.deviation
            before = next((n for n in node.input if n in statistics), None)
            if node.op_type in _MEANS and before is not None and len(spread[before]) == len(spread[name]):
                spread[name] = spread[before]
            layer = layers.get(name)
            if name in normals:
                reach[name] = _around(normals[name].mean, normals[name].deviation)
            elif (
                layer is not None and name in graph.shown and knows_inputs(layer, graph.weights[layer.weight])
            ):
                own = _spread_of(layer, graph.weights[layer.weight], spread[layer.input])
                reach[name] = _around(means[name], own, OUTPUT_DEVIATIONS)
            elif node.op_type == "Add" and all(n in statistics for n in node.input):
                reach[name] = _around(means[name], spread[name])
            elif before in reach and len(reach[before][0]) == len(seen.low):
                low, high = reach[before]
                if node.op_type in ("Relu", "Clip"):
                    bounds = _bounds(node, graph)
                    reach[name] = np.clip(low, *bounds), np.clip(high, *bounds)
                elif node.op_type in _MEANS:
                    reach[name] = low, high
                elif node.op_type in _BELOW:
                    reach[name] = seen.low, np.maximum(high, 0.0)
            low, high = reach.get(name, (seen.low, seen.high))
            if known is None:
                low, high = np.minimum(low, seen.low), np.maximum(high, seen.high)
            statistics[name] = TensorStatistics(low, high, means[name] ** 2 + spread[name] ** 2)
        for name in step.done:
            live.pop(name, None)
    return Expectation(statistics, means)


def _around(mean: Array, deviation: Array, reach: float = DEVIATIONS) -> tuple[Array, Array]:
    return mean - reach * deviation, mean + reach * deviation


def _spread_of(layer: WeightLayer, weight: Array, spread: Array) -> Array:
    """The deviation of a layer's outputs from that of its inputs, taken as independent of each other."""
    variance: Array = made_of(layer, np.square(weight), np.square(spread).astype(np.float32))
    return np.sqrt(variance)


def _advance(step: Step, graph: FloatGraph, live: dict[str, list[Array]]) -> None:
    made: dict[str, list[Array]] = {name: [] for name in step.outputs}

    def run(index: int) -> dict[str, Array]:
        return step.run({n: live[n][index] for n in step.inputs if n in live}, graph.weights)

    count = len(next(iter(live.values())))
    for outputs in side_by_side(run, range(count)):
        for name, value in outputs.items():
            made[name].append(value)
    live.update(made)


def _known(
    node: onnx.NodeProto, graph: FloatGraph, normals: ChannelNormals
) -> tuple[Normal, float, float] | None:
    """The normal distribution behind a node's output, and what it is clipped to."""
    if node.output[0] in normals:
        return normals[node.output[0]], -np.inf, np.inf
    if node.op_type in ("Relu", "Clip") and node.input[0] in normals:
        return normals[node.input[0]], *_bounds(node, graph)
    return None


def _bounds(node: onnx.NodeProto, graph: FloatGraph) -> tuple[float, float]:
    """What a Relu or Clip cuts its input to."""
    if node.op_type == "Relu":
        return 0.0, np.inf
    low, high = (graph.weights.get(name) for name in (*node.input[1:], "", "")[:2])
    return -np.inf if low is None else float(low), np.inf if high is None else float(high)


def _brought_to(normal: Normal, values: list[Array], axis: int) -> list[Array]:
    rows = _channels(values, axis)
    deviation = rows.std(1)
    shape = [1] * values[0].ndim
    shape[axis] = -1
    # A channel that noise leaves constant stays so, at its mean.
    factor = np.where(deviation > 0, normal.deviation / np.where(deviation > 0, deviation, 1.0), 0.0)
    offset = normal.mean - factor * rows.mean(1)
    return [(value * factor.reshape(shape) + offset.reshape(shape)).astype(np.float32) for value in values]


def _channels(values: Sequence[Array], axis: int) -> Array:
    """All samples' values of each channel, a row each."""
    stacked = np.stack(values)
    if stacked.ndim == 1:
        return stacked.reshape(1, -1)
    return np.moveaxis(stacked, axis + 1, 0).reshape(stacked.shape[axis + 1], -1)
