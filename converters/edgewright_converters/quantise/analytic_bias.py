"""Bias correction without data: what rounding the weights adds to a channel on average, by its expectation.

Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.2.1: with ε
what rounding adds to a weight, the output shifts by ε·E[x], which comes off the bias. E[x] of a ReLU's or ReLU6's
output is that of a normal distribution clipped to its range (appendix C). A convolution's padding is left aside,
as it is there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright_converters.batch_norm import Normal
from edgewright_converters.float_graph import FloatGraph
from edgewright_converters.quantise.bias_absorption import knows_inputs, made_of
from edgewright_converters.quantise.grid import rounded_weight

Array = NDArray[Any]
_ERF = np.vectorize(math.erf, otypes=[np.float64])


def clipped(normal: Normal, low: float, high: float) -> Normal:
    """Mean and deviation of a normal variable that is clipped to [low, high], either of which may be infinite.

    Nagel et al. 2019, appendix C, equations 25 to 38.
    """
    mean, deviation = normal.mean.astype(np.float64), np.maximum(normal.deviation.astype(np.float64), 1e-30)
    below, above = (low - mean) / deviation, (high - mean) / deviation
    density_low, density_high = _density(below), _density(above)
    share_low, share_high = _cumulative(below), 1 - _cumulative(above)
    inside = 1 - share_low - share_high
    at_low = share_low * low if math.isfinite(low) else 0.0
    at_high = share_high * high if math.isfinite(high) else 0.0
    first = mean * inside + deviation * (density_low - density_high) + at_low + at_high
    square = (mean**2 + deviation**2) * inside
    if math.isfinite(low):
        square = square + deviation * (mean + low) * density_low + share_low * low**2
    if math.isfinite(high):
        square = square - deviation * (mean + high) * density_high + share_high * high**2
    return Normal(first, np.sqrt(np.maximum(square - first**2, 0.0)))


def analytically_corrected(graph: FloatGraph, means: Mapping[str, Array]) -> FloatGraph:
    """The graph with its weights rounded and its biases corrected; `means` are E[x] by tensor and channel."""
    changed: dict[str, Array] = {}
    for layer in graph.layers:
        if not graph.changeable(layer.weight, layer.bias):
            continue
        weight = graph.weights[layer.weight]
        changed[layer.weight] = rounded_weight(weight, layer.channel_axis)
        expected = means.get(layer.input)
        if layer.bias is None or expected is None or not knows_inputs(layer, weight):
            continue
        shift = made_of(layer, changed[layer.weight] - weight, expected.astype(np.float32))
        changed[layer.bias] = (graph.weights[layer.bias] - shift).astype(np.float32)
    return graph.with_weights(changed)


def _density(value: Array) -> Array:
    result: Array = np.where(np.isfinite(value), np.exp(-np.square(np.clip(value, -40, 40)) / 2), 0.0)
    return result / math.sqrt(2 * math.pi)


def _cumulative(value: Array) -> Array:
    result: Array = (1 + _ERF(np.clip(value, -40, 40) / math.sqrt(2))) / 2
    return result
