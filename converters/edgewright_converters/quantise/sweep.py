"""One walk through a graph with its float and its quantised values side by side, repairing layer after layer.

The quantised path carries what INT8 stores (activations on their grids, weights on theirs) as real numbers, so
each repair sees the error that really reaches its layer, including what was left by the layers before it. The
result is judged elsewhere, as the target executes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright_converters.execution import Execution, Step, side_by_side
from edgewright_converters.float_graph import FloatGraph, WeightLayer
from edgewright_converters.quantise.grid import ActivationGrid, rounded_weight

Array = NDArray[Any]
SWEEP_BYTES = 480_000_000
"""Bounds the activations that are held at once, and so how many samples a sweep uses."""

MOST_SAMPLES = 64


@dataclass(frozen=True)
class LayerView:
    """What a repair sees of a layer: its inputs as INT8 holds them and its outputs as float has them.

    Arrays are one per sample. `axis` runs over the output's channels. `run` computes the outputs that other
    weights would give from the quantised inputs.
    """

    layer: WeightLayer
    inputs: Sequence[Array]
    outputs: Sequence[Array]
    axis: int
    weight: Array
    bias: Array | None
    run: Callable[[Array, Array | None], list[Array]]


Repair = Callable[[LayerView], tuple[Array, Array | None]]
"""Returns the weight, on its integer grid, and the bias to go on with."""


@dataclass(frozen=True)
class Sweep:
    """The graph with its repaired weights, and the noise at each tensor relative to its signal."""

    graph: FloatGraph
    noise_db: Mapping[str, float]
    """Signal to quantisation noise of each stored tensor, decibels, on the samples of the sweep."""
    samples: int


def rounded_only(view: LayerView) -> tuple[Array, Array | None]:
    """No repair: the nearest integers."""
    return rounded_weight(view.weight, view.layer.channel_axis), view.bias


def sweep_samples(graph: FloatGraph, available: int) -> int:
    """How many samples a sweep may hold within `SWEEP_BYTES`."""
    largest = max((math.prod(graph.shapes.get(name, ())) * 4 for name in graph.float_tensors), default=1)
    # Either path holds an operator's input and output.
    return max(4, min(available, MOST_SAMPLES, SWEEP_BYTES // (2 * 2 * largest)))


def sweep(
    execution: Execution,
    ranges: Mapping[str, tuple[float, float]],
    samples: Sequence[Mapping[str, Array]],
    repair: Repair = rounded_only,
    in_float: frozenset[str] = frozenset(),
) -> Sweep:
    """Walk `samples` through the graph. Layers named in `in_float` stay float, with their input and output."""
    graph = execution.graph
    layers = {layer.output: layer for layer in graph.layers}
    grids = {name: ActivationGrid.over(*ranges[name]) for name in graph.quantised_tensors if name in ranges}
    live_float: list[dict[str, Array]] = [dict(sample) for sample in samples]
    live_int8: list[dict[str, Array]] = [
        {name: _stored(name, value, grids) for name, value in sample.items()} for sample in samples
    ]
    weights = dict(graph.weights)
    noise: dict[str, float] = {}
    for step in execution.steps:
        reference = list(side_by_side(partial(step.run, weights=graph.weights), live_float))
        layer = layers.get(step.outputs[0])
        if layer is not None and layer.name not in in_float:
            view = _view(graph, step, layer, weights, live_int8, reference)
            repairable = graph.changeable(layer.weight, layer.bias)
            weight, bias = (repair if repairable else rounded_only)(view)
            weights[layer.weight] = weight.astype(np.float32)
            if layer.bias is not None and bias is not None:
                weights[layer.bias] = bias.astype(np.float32)
        for live, made in zip(live_float, reference, strict=True):
            live.update(made)
        advance = partial(_stored_outputs, step, weights, grids)
        for live, made in zip(live_int8, side_by_side(advance, live_int8), strict=True):
            live.update(made)
        for name in step.outputs:
            if name in grids:
                noise[name] = _noise_db(name, live_float, live_int8)
        for name in step.done:
            for live in (*live_float, *live_int8):
                live.pop(name, None)
    repaired = {name: value for name, value in weights.items() if name not in graph.fixed}
    return Sweep(graph.with_weights(repaired), noise, len(samples))


def _view(
    graph: FloatGraph,
    step: Step,
    layer: WeightLayer,
    weights: Mapping[str, Array],
    live: Sequence[Mapping[str, Array]],
    reference: Sequence[Mapping[str, Array]],
) -> LayerView:
    # A bias that a later Add holds cannot be seen here; it moves the output all the same.
    inside = layer.bias in step.inputs

    def run(weight: Array, bias: Array | None) -> list[Array]:
        changed = {layer.weight: weight.astype(np.float32)}
        if inside and layer.bias is not None and bias is not None:
            changed[layer.bias] = bias.astype(np.float32)
        current = {**weights, **changed}
        outputs = [made[layer.output] for made in side_by_side(partial(step.run, weights=current), live)]
        if not inside and layer.bias is not None and bias is not None:
            shift = bias.astype(np.float32) - graph.weights[layer.bias]
            outputs = [output + shift for output in outputs]
        return outputs

    return LayerView(
        layer,
        [tensors[layer.input] for tensors in live],
        [tensors[layer.output] for tensors in reference],
        graph.channel_axes[layer.output],
        weights[layer.weight],
        weights[layer.bias] if layer.bias is not None else None,
        run,
    )


def _stored_outputs(
    step: Step, weights: Mapping[str, Array], grids: Mapping[str, ActivationGrid], live: Mapping[str, Array]
) -> dict[str, Array]:
    return {name: _stored(name, value, grids) for name, value in step.run(live, weights).items()}


def _stored(name: str, value: Array, grids: Mapping[str, ActivationGrid]) -> Array:
    return grids[name].rounded(value) if name in grids else value


def _noise_db(
    name: str, live_float: Sequence[Mapping[str, Array]], live_int8: Sequence[Mapping[str, Array]]
) -> float:
    signal = noise = 0.0
    for expected, got in zip(live_float, live_int8, strict=True):
        flat = expected[name].reshape(-1)
        error = flat - got[name].reshape(-1)
        signal += float(flat @ flat)
        noise += float(error @ error)
    return 10 * math.log10(signal / noise) if signal > 0 and noise > 0 else 200.0
