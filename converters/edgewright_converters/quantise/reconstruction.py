"""Layer-wise reconstruction: weights that give the float outputs back from the inputs as INT8 holds them.

The objective is that of Nagel et al. 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization",
equation 25 (float outputs against outputs from quantised inputs), solved in closed form: first the real weights
that minimise it by ridge regression towards the trained ones (Hubara et al. 2021, "Accurate Post Training
Quantization With Small Calibration Sets", let the weights move as well), its strength chosen by
samples held out; then rounding in which each integer's error is carried to the weights not yet rounded
(Frantar et al. 2023, "GPTQ", algorithm 1). A channel that comes out no better on the samples held out is rounded
to the nearest integers as before. Of what is left the mean alone is taken out, no slope: a line fitted to noisy
outputs is too flat, and the network behind it on other data is dimmed (EfficientNet-Lite0 lost half a decibel on
photos like the calibration photos, a whole one on others). Seconds for a network in place of minutes of gradient
descent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright_converters.float_graph import attribute
from edgewright_converters.quantise.bias_correction import mean_corrected
from edgewright_converters.quantise.grid import WEIGHT_MAX, rounded_weight, weight_scales
from edgewright_converters.quantise.sweep import LayerView

Array = NDArray[Any]
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Ridge penalties tried, relative to the mean square of an input."""
ROWS_PER_INPUT = 8
"""Equations needed for each unknown of an output channel; with fewer, the fit follows the samples' noise."""
MOST_ROWS = 8192
MOST_VALUES = 4_000_000
"""Bounds the equations of one layer to some 100 MB."""
DAMPING = 0.01
"""Of the mean diagonal, added to the Hessian (GPTQ, section 3.3)."""


@dataclass(frozen=True)
class _Equations:
    """Inputs [groups, rows, taps] and float outputs [groups, rows, channels a group] of a layer."""

    x: Array
    y: Array


def reconstructed(view: LayerView) -> tuple[Array, Array | None]:
    """Fit, round and centre one layer; one with few equations or a single sample is rounded and centred."""
    plain = rounded_weight(view.weight, view.layer.channel_axis)
    taps = math.prod(view.weight.shape) // view.weight.shape[view.layer.channel_axis]
    rows = min(view.positions, MOST_ROWS, MOST_VALUES // (taps * view.layer.groups))
    unsuited = view.bias is None or view.layer.node.op_type == "ConvTranspose"
    if unsuited or len(view.inputs) < 2 or rows < ROWS_PER_INPUT * taps:
        return mean_corrected(view, plain)
    each = rows // len(view.inputs)
    held_out = max(1, len(view.inputs) // 4)
    train, judge = _equations(view, slice(held_out, None), each), _equations(view, slice(0, held_out), each)
    matrix = _as_groups(view, view.weight)
    rounded, nearest = _round(_fit(matrix, train, judge), train), _as_groups(view, plain)
    better = _losses(rounded, judge) < _losses(nearest, judge)
    return mean_corrected(view, _from_groups(view, np.where(better[:, :, None], rounded, nearest)))


def _equations(view: LayerView, samples: slice, each: int) -> _Equations:
    inputs, outputs = view.inputs.some(samples), view.outputs.some(samples)
    rng = np.random.default_rng(0)
    pairs = [_rows(view, x, y, each, rng) for x, y in zip(inputs, outputs, strict=True)]
    x = np.concatenate([p[0] for p in pairs], axis=1).astype(np.float64)
    y = np.concatenate([p[1] for p in pairs], axis=1).astype(np.float64)
    return _Equations(x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True))


def _rows(view: LayerView, x: Array, y: Array, most: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Some positions of one sample as [groups, rows, taps] and [groups, rows, channels]."""
    groups = view.layer.groups
    if view.layer.node.op_type != "Conv":
        flat_x, flat_y = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
        chosen = rng.permutation(len(flat_x))[:most]
        return flat_x[chosen][None], flat_y[chosen][None]
    windows = _windows(view, x)  # [channels, positions…, taps…]
    spatial = y.shape[2:]
    places: tuple[Any, ...] = np.unravel_index(rng.permutation(math.prod(spatial))[:most], spatial)
    picked = windows[(slice(None), *places)]  # [channels, rows, taps…]
    channels, rows = picked.shape[:2]
    taps = picked.reshape(groups, channels // groups, rows, -1).transpose(0, 2, 1, 3)
    wanted = y[0][(slice(None), *places)].reshape(groups, -1, rows).transpose(0, 2, 1)
    return taps.reshape(groups, rows, -1), wanted


def _windows(view: LayerView, x: Array) -> Array:
    node, kernel = view.layer.node, view.weight.shape[2:]
    rank = len(kernel)
    pads = attribute(node, "pads", [0] * (2 * rank))
    strides = attribute(node, "strides", [1] * rank)
    dilations = attribute(node, "dilations", [1] * rank)
    padded = np.pad(x[0], ((0, 0), *((pads[i], pads[i + rank]) for i in range(rank))))
    spans = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    windows = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=tuple(range(1, rank + 1)))
    every = (
        slice(None),
        *(slice(None, None, s) for s in strides),
        *(slice(None, None, d) for d in dilations),
    )
    result: Array = windows[every]
    return result


def _as_groups(view: LayerView, weight: Array) -> Array:
    """[groups, output channels a group, taps]."""
    rows = weight.T if weight.ndim == 2 and view.layer.channel_axis == 1 else weight
    return rows.reshape(view.layer.groups, rows.shape[0] // view.layer.groups, -1).astype(np.float64)


def _from_groups(view: LayerView, matrix: Array) -> Array:
    transposed = view.weight.ndim == 2 and view.layer.channel_axis == 1
    rows = matrix.reshape(-1, matrix.shape[-1])
    return (rows.T if transposed else rows.reshape(view.weight.shape)).astype(np.float32)


def _fit(weight: Array, train: _Equations, judge: _Equations) -> Array:
    """Ridge regression towards `weight`; the strength with the least error on the samples held out."""
    best, least = weight, _loss(weight, judge)
    gram = train.x.transpose(0, 2, 1) @ train.x
    taps = gram.shape[-1]
    mean = np.trace(gram, axis1=1, axis2=2)[:, None, None] / taps
    residual = train.y - train.x @ weight.transpose(0, 2, 1)
    pull = train.x.transpose(0, 2, 1) @ residual
    for strength in STRENGTHS:
        change = np.linalg.solve(gram + (strength * mean + 1e-12) * np.eye(taps), pull)
        fitted = weight + change.transpose(0, 2, 1)
        loss = _loss(fitted, judge)
        if loss < least:
            best, least = fitted, loss
    return best


def _loss(weight: Array, equations: _Equations) -> float:
    return float(_losses(weight, equations).mean())


def _losses(weight: Array, equations: _Equations) -> Array:
    """Mean squared error of each channel, [groups, channels a group]."""
    loss: Array = np.square(equations.y - equations.x @ weight.transpose(0, 2, 1)).mean(1)
    return loss


def _round(weight: Array, train: _Equations) -> Array:
    """GPTQ rounding onto each row's grid. The row's largest weight keeps its integer, so that whoever derives
    the scale from the result finds the same grid."""
    gram = train.x.transpose(0, 2, 1) @ train.x
    taps = gram.shape[-1]
    mean = np.trace(gram, axis1=1, axis2=2)[:, None, None] / taps
    inverse = np.linalg.inv(gram + (DAMPING * mean + 1e-12) * np.eye(taps))
    upper = np.linalg.cholesky(inverse).transpose(0, 2, 1)
    scales = np.stack([weight_scales(group, 0) for group in weight]).astype(np.float64)
    largest = np.abs(weight).argmax(axis=2)
    left, result = weight.copy(), np.empty_like(weight)
    for column in range(taps):
        value = left[:, :, column]
        steps = np.clip(np.rint(value / scales[:, :, 0]), -WEIGHT_MAX, WEIGHT_MAX)
        pinned = largest == column
        steps[pinned] = np.sign(weight[:, :, column][pinned]) * WEIGHT_MAX
        result[:, :, column] = steps * scales[:, :, 0]
        error = (value - result[:, :, column]) / upper[:, column, column][:, None]
        left[:, :, column + 1 :] -= error[:, :, None] * upper[:, column, column + 1 :][:, None, :]
    return result
