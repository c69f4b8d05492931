"""One walk through a graph with its float and its quantised values side by side, repairing layer after layer.

The quantised path carries what INT8 stores (activations on their grids, weights on theirs), so each repair sees
the error that really reaches its layer, including what was left by the layers before it. More samples make better
repairs, and every sample is held at every step; so between steps stored activations are held as their 8-bit
codes, and float ones in half precision, whose error is 60 dB below the signal. The result is judged elsewhere, as
the target executes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgewright_converters.comparison import decibels
from edgewright_converters.execution import Execution, Step, side_by_side
from edgewright_converters.float_graph import FloatGraph, WeightLayer
from edgewright_converters.large_blocks import own_block
from edgewright_converters.quantise.grid import ActivationGrid, rounded_weight

Array = NDArray[Any]
SWEEP_BYTES = 450_000_000
"""Bounds the activations that are held at once, and so how many samples a sweep uses."""
BYTES_A_VALUE = 7
"""Of the largest tensor: half precision before and after an operator, codes before it, half precision after."""
MOST_SAMPLES = 128
HALF_MAX = 60_000.0
"""Of half precision; a tensor that comes near it is held in single precision."""


@dataclass(frozen=True)
class Stack:
    """One tensor of every sample in one block of memory, which goes back to the system as a whole.

    Iterating unpacks one sample after another: all at once would not fit.
    """

    data: Array
    grid: ActivationGrid | None = None

    @classmethod
    def like(cls, value: Array, samples: int, grid: ActivationGrid | None) -> Stack:
        """Room for `samples` tensors like `value`."""
        dtype: Any = value.dtype
        if grid is not None:
            dtype = np.uint8
        elif dtype == np.float32 and np.abs(value).max(initial=0.0) < HALF_MAX / 16:
            dtype = np.float16
        return cls(own_block((samples, *value.shape), dtype), grid)

    def put(self, index: int, value: Array) -> None:
        """Pack one sample's tensor."""
        if self.grid is not None:
            self.data[index] = self.grid.codes(value)
        elif self.data.dtype == np.float16:
            bounded = np.clip(value, -HALF_MAX, HALF_MAX)
            # torch converts ten times as fast as numpy.
            torch.from_numpy(self.data[index]).copy_(torch.from_numpy(bounded))
        else:
            self.data[index] = value

    def __getitem__(self, index: int) -> Array:
        held: Array = self.data[index]
        if self.grid is not None:
            return self.grid.values(held)
        if held.dtype == np.float16:
            single = np.empty(held.shape, np.float32)
            torch.from_numpy(single).copy_(torch.from_numpy(held))
            return single
        return held

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[Array]:
        return side_by_side(self.__getitem__, range(len(self)))

    def some(self, samples: slice) -> Stack:
        """The tensors of some of the samples."""
        return Stack(self.data[samples], self.grid)


@dataclass(frozen=True)
class LayerView:
    """What a repair sees of a layer: its inputs as INT8 holds them and its outputs as float has them.

    One array a sample, each time they are iterated over. `axis` runs over the output's channels and `shape` is
    one output's. `run` computes the outputs that other weights would give from the quantised inputs.
    """

    layer: WeightLayer
    inputs: Stack
    outputs: Stack
    axis: int
    shape: tuple[int, ...]
    weight: Array
    bias: Array | None
    run: Callable[[Array, Array | None], Iterable[Array]]

    @property
    def positions(self) -> int:
        """Values of one output channel over all samples."""
        return len(self.outputs) * math.prod(self.shape) // self.shape[self.axis]


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
    largest = max((math.prod(graph.shapes.get(name, ())) for name in graph.float_tensors), default=1)
    return max(4, min(available, MOST_SAMPLES, SWEEP_BYTES // (BYTES_A_VALUE * max(largest, 1))))


def sweep(
    execution: Execution,
    ranges: Mapping[str, tuple[float, float]],
    samples: Iterable[Mapping[str, Array]],
    repair: Repair = rounded_only,
    in_float: frozenset[str] = frozenset(),
) -> Sweep:
    """Walk `samples` through the graph. Layers in `in_float` keep their weights; activations stay on grids."""
    graph = execution.graph
    layers = {layer.output: layer for layer in graph.layers}
    grids = {name: ActivationGrid.over(*ranges[name]) for name in graph.quantised_tensors if name in ranges}
    first = list(samples)
    count = len(first)
    live_float, live_int8 = stacked(first, {}), stacked(first, grids)
    weights = dict(graph.weights)
    noise: dict[str, float] = {}
    for step in execution.steps:
        advance(step, graph.weights, live_float, {}, count)
        layer = layers.get(step.outputs[0])
        if layer is not None and layer.name not in in_float:
            view = _view(graph, step, layer, weights, live_int8, live_float)
            repairable = graph.changeable(layer.weight, layer.bias)
            weight, bias = (repair if repairable else rounded_only)(view)
            weights[layer.weight] = weight.astype(np.float32)
            if layer.bias is not None and bias is not None:
                weights[layer.bias] = bias.astype(np.float32)
        advance(step, weights, live_int8, grids, count)
        for name in step.outputs:
            if name in grids:
                noise[name] = _noise_db(live_float[name], live_int8[name])
        for name in step.done:
            live_float.pop(name, None)
            live_int8.pop(name, None)
    repaired = {name: value for name, value in weights.items() if name not in graph.fixed}
    return Sweep(graph.with_weights(repaired), noise, count)


def stacked(samples: Sequence[Mapping[str, Array]], grids: Mapping[str, ActivationGrid]) -> dict[str, Stack]:
    """The inputs of all samples, packed, those with a grid as its codes."""
    found: dict[str, Stack] = {}
    for name, first in samples[0].items():
        found[name] = Stack.like(first, len(samples), grids.get(name))
        for index, sample in enumerate(samples):
            found[name].put(index, sample[name])
    return found


def _view(
    graph: FloatGraph,
    step: Step,
    layer: WeightLayer,
    weights: Mapping[str, Array],
    live: Mapping[str, Stack],
    reference: Mapping[str, Stack],
) -> LayerView:
    # A bias that a later Add holds cannot be seen here; it moves the output all the same.
    inside = layer.bias in step.inputs
    outputs = reference[layer.output]

    def run(weight: Array, bias: Array | None) -> Iterable[Array]:
        current = {**weights, layer.weight: weight.astype(np.float32)}
        shift: Array | None = None
        if layer.bias is not None and bias is not None:
            if inside:
                current[layer.bias] = bias.astype(np.float32)
            else:
                shift = bias.astype(np.float32) - graph.weights[layer.bias]

        def output(index: int) -> Array:
            made: Array = step.run(_inputs(step, live, index), current)[layer.output]
            return made + shift if shift is not None else made

        return side_by_side(output, range(len(outputs)))

    return LayerView(
        layer,
        live[layer.input],
        outputs,
        graph.channel_axes[layer.output],
        outputs.data.shape[1:],
        weights[layer.weight],
        weights[layer.bias] if layer.bias is not None else None,
        run,
    )


def advance(
    step: Step,
    weights: Mapping[str, Array],
    live: dict[str, Stack],
    grids: Mapping[str, ActivationGrid],
    count: int,
) -> None:
    """Run a step on every sample and hold what it makes."""
    first = step.run(_inputs(step, live, 0), weights)
    stacks = {name: Stack.like(value, count, grids.get(name)) for name, value in first.items()}

    def hold(index: int) -> None:
        made = step.run(_inputs(step, live, index), weights) if index else first
        for name, value in made.items():
            stacks[name].put(index, value)

    for _ in side_by_side(hold, range(count)):
        pass
    live.update(stacks)


def _inputs(step: Step, live: Mapping[str, Stack], index: int) -> dict[str, Array]:
    return {name: live[name][index] for name in step.inputs if name in live}


def _noise_db(expected: Stack, got: Stack) -> float:
    signal = noise = 0.0
    for one, other in zip(expected, got, strict=True):
        flat = one.reshape(-1)
        error = flat - other.reshape(-1)
        signal += float(flat @ flat)
        noise += float(error @ error)
    return decibels(signal, noise)
