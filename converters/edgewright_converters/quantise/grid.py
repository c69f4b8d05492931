"""The integer grids: which real numbers an INT8 tensor can hold, and rounding onto them.

Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", section 2.1; weights symmetric per channel as the TFLite 8-bit quantisation specification has them,
which is also what ONNX Runtime's quantiser makes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
STEPS = 255
"""Steps of an 8-bit activation; uint8 and int8 differ by a shift of the zero point alone."""
BIAS_STEPS = 2**29
"""A quarter of what a 32-bit bias can count to: the accumulator adds the products to it."""
WEIGHT_MAX = 127
"""Symmetric weights leave −128 unused, as both targets do."""

LEAST_SCALE = float(np.finfo(np.float32).tiny)
"""Below it a step is no normal number, and its inverse none at all. What is that small is nought."""


@dataclass(frozen=True)
class ActivationGrid:
    """An 8-bit affine grid over [low, high], which holds zero exactly."""

    scale: float
    zero_point: int

    @classmethod
    def over(cls, low: float, high: float) -> ActivationGrid:
        low, high = min(low, 0.0), max(high, 0.0)
        scale = (high - low) / STEPS
        scale = scale if scale > LEAST_SCALE else 1.0
        return cls(scale, round(-low / scale))

    def codes(self, values: Array) -> Array:
        """Each value as the 8-bit integer that stands for the nearest one of the grid."""
        steps = np.multiply(values, np.float32(1.0 / self.scale), dtype=np.float32)
        np.rint(steps, out=steps)
        steps += np.float32(self.zero_point)
        return np.clip(steps, 0, STEPS, out=steps).astype(np.uint8)

    def values(self, codes: Array) -> Array:
        """What 8-bit integers stand for."""
        reals = codes.astype(np.float32)
        reals -= np.float32(self.zero_point)
        reals *= np.float32(self.scale)
        return reals

    def rounded(self, values: Array) -> Array:
        """Each value as the nearest one of the grid."""
        return self.values(self.codes(values))


def weight_scales(weight: Array, channel_axis: int) -> Array:
    """The scale of each output channel, shaped to broadcast against the weight; 1 where a channel is nought.

    Channels that weight decay left as denormal numbers count as nought.
    """
    axes = tuple(axis for axis in range(weight.ndim) if axis != channel_axis)
    largest = np.abs(weight).max(axis=axes, keepdims=True)
    return np.where(largest > WEIGHT_MAX * LEAST_SCALE, largest / WEIGHT_MAX, 1.0).astype(np.float32)


def rounded_weight(weight: Array, channel_axis: int) -> Array:
    """A weight as INT8 holds it. Doing it twice changes nothing."""
    scales = weight_scales(weight, channel_axis)
    result: Array = (np.rint(weight / scales) * scales).astype(np.float32)
    return result


def holding_bias(weight: Array, bias: Array, channel_axis: int, input_scale: float) -> Array:
    """`weight` with the scale of each channel large enough for its bias to fit into 32 bits.

    A bias is stored in units of input scale × weight scale. In a channel whose weights are all but nought it would
    saturate, and what float makes a constant would come out as another one. There the largest weight is raised
    until the bias takes a quarter of the range; by then it moves the output by a 30,000th of the bias at most.
    """
    needed = np.abs(bias.astype(np.float64)) / (input_scale * BIAS_STEPS)
    rows = np.moveaxis(weight, channel_axis, 0).reshape(len(needed), -1).copy()
    small = np.flatnonzero(np.abs(rows).max(axis=1) / WEIGHT_MAX < needed)
    if not small.size:
        return weight
    largest = np.abs(rows[small]).argmax(axis=1)
    signs = np.where(rows[small, largest] < 0, -1.0, 1.0)
    rows[small, largest] = signs * needed[small] * WEIGHT_MAX
    shape = np.moveaxis(weight, channel_axis, 0).shape
    result: Array = np.ascontiguousarray(np.moveaxis(rows.reshape(shape), 0, channel_axis))
    return result
