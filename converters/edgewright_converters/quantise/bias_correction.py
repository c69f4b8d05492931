"""Bias correction: takes out of each output channel what rounding added to it on average.

Rounding errors are not centred: they shift the mean of a channel (Nagel et al. 2019, section 4.2, the empirical
form) and shrink or stretch it (Banner et al. 2019, "Post training 4-bit quantization of convolutional networks
for rapid deployment", section 4, who correct the second moment of the weights). Both are found here at once, as
the straight line that maps a channel's quantised outputs to its float ones with the least squared error. The
slope goes into the scale of the channel's weights and the offset into its bias: neither costs anything to run.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright_converters.quantise.grid import rounded_weight
from edgewright_converters.quantise.sweep import LayerView

Array = NDArray[Any]
SLOPE_LIMIT = 0.1
"""How far from 1 a slope may be; more would mean that a channel carries noise alone."""
LEAST_VALUES = 16
"""Values of a channel needed to fit a slope; a line through fewer follows their noise."""


def corrected(view: LayerView) -> tuple[Array, Array | None]:
    """Round the weight to its nearest integers and correct the channels' lines."""
    return line_corrected(view, rounded_weight(view.weight, view.layer.channel_axis))


def line_corrected(view: LayerView, weight: Array) -> tuple[Array, Array | None]:
    """`weight`, which is on its grid, and the bias, with each output channel's line corrected."""
    slope, offset = channel_lines(view.outputs, view.run(weight, view.bias), view.axis)
    if view.bias is None:
        # Nowhere to put an offset; a slope without it would move the mean.
        return weight, None
    shape = [1] * weight.ndim
    shape[view.layer.channel_axis] = -1
    # output = slope · (x·W + bias) + offset; the outputs of a MatMul are without its bias, which an Add holds.
    bias = view.bias if view.layer.node.op_type == "MatMul" else slope * view.bias
    return weight * slope.reshape(shape), bias + offset


def mean_corrected(view: LayerView, weight: Array) -> tuple[Array, Array | None]:
    """`weight`, which is on its grid, and the bias, with each output channel's mean corrected alone.

    For weights that were fitted to the outputs: a line fitted to what is noisy is too flat, by the share of the
    noise, which is most in channels that the calibration data hardly stirs.
    """
    if view.bias is None:
        return weight, None
    total, count = np.zeros(1), 0
    for expected, got in zip(view.outputs, view.run(weight, view.bias), strict=True):
        errors = np.moveaxis(expected - got, view.axis, 0).reshape(expected.shape[view.axis], -1)
        total = total + errors.sum(1, dtype=np.float64)
        count += errors.shape[1]
    return weight, view.bias + total / count


def channel_lines(expected: Iterable[Array], got: Iterable[Array], axis: int) -> tuple[Array, Array]:
    """Slope and offset of each channel's least squares line from `got` to `expected`, over all samples."""
    count, sums, centre = 0, np.zeros((4, 1)), None
    for one, other in zip(expected, got, strict=True):
        x, y = (np.moveaxis(a, axis, 0).reshape(a.shape[axis], -1) for a in (other, one))
        if centre is None:
            # Near its mean a channel's squares fit single precision.
            centre = y.mean(1, keepdims=True)
        x, y = x - centre, y - centre
        sums = sums + np.stack([x.sum(1), y.sum(1), _products(x, x), _products(x, y)])
        count += x.shape[1]
    assert centre is not None
    mean_x, mean_y, square, product = sums / count
    variance, covariance = square - mean_x**2, product - mean_x * mean_y
    slope = np.ones_like(mean_x)
    if count >= LEAST_VALUES:
        fits = variance > 1e-12 * np.maximum(square + centre[:, 0] ** 2, 1e-30)
        slope[fits] = np.clip(covariance[fits] / variance[fits], 1 - SLOPE_LIMIT, 1 + SLOPE_LIMIT)
    return slope, mean_y + centre[:, 0] - slope * (mean_x + centre[:, 0])


def _products(one: Array, other: Array) -> Array:
    """The sum of the products of each row."""
    sums: Array = np.matmul(one[:, None, :], other[:, :, None])[:, 0, 0]
    return sums
