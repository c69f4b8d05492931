"""Adaptive rounding: whether each weight goes up or down is learnt for what comes out of its block.

A relaxed choice for each weight is pressed towards nought or one while the block gives float's outputs from the
inputs as INT8 holds them (Nagel et al. 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization",
section 3.3), a block at a time with its activations on their grids (Li et al. 2021, "BRECQ: Pushing the Limit of
Post-Training Quantization by Block Reconstruction", section 3.2), so that what an activation cuts off costs
nothing: the closed form of `reconstruction` cannot see that. Each channel's slope and bias are learnt with it. A
block keeps what was learnt only where that leaves less error on samples that were not learnt from.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from edgewright_converters.execution import Execution
from edgewright_converters.float_graph import FloatGraph, WeightLayer
from edgewright_converters.quantise.block import Block, blocks, run_block
from edgewright_converters.quantise.grid import WEIGHT_MAX, ActivationGrid, weight_scales
from edgewright_converters.quantise.sweep import Stack, advance, stacked

Array = NDArray[Any]
ITERATIONS = 400
BATCH = 32
BATCH_VALUES = 10_000_000
"""Of the largest tensor at the ends of a block; it bounds the memory of a step, and so the samples in it."""
LEARNING_RATE = 5e-2
LINE_RATE = 3e-4
"""Of slopes and biases, in shares of the channel."""
WARM_UP, DECIDED = 0.2, 0.8
"""Of the iterations: before the first no choice is pressed to either side (Nagel et al. 2020, appendix B), after
the second it is made, and slopes and biases are learnt for it alone."""
BETA = (20.0, 2.0)
"""Annealed from the first to the second: first only the undecided are left alone, then none."""
PRESSURE = 15.0
"""What a wholly undecided weight costs, in units of the error that nearest rounding leaves."""
ZETA, GAMMA = 1.1, -0.1
"""Stretch of the sigmoid, so that it reaches nought and one (Louizos et al. 2018, "Learning Sparse Neural Networks
through L0 Regularization")."""
START = 0.9
"""How far the choice leans to the integer that is there."""
LEAST_GAIN = 0.995
"""What is learnt must leave this share of the error at most on the samples held out."""


def adaptively_rounded(
    execution: Execution,
    incumbent: FloatGraph,
    ranges: Mapping[str, tuple[float, float]],
    samples: Sequence[Mapping[str, Array]],
    wanted: Collection[str],
    seconds: float,
    iterations: int = ITERATIONS,
) -> FloatGraph:
    """`incumbent` with the layers named in `wanted` rounded anew where that is better; no block begins after
    `seconds`. `execution` has the weights as float has them."""
    graph = execution.graph
    grids = {name: ActivationGrid.over(*ranges[name]) for name in graph.quantised_tensors if name in ranges}
    chosen = {
        block.steps[0].outputs[0]: block
        for block in blocks(execution, grids)
        if any(layer.name in wanted for layer in block.layers)
    }
    count, started = len(samples), time.perf_counter()
    live_float, live_int8 = stacked(samples, {}), stacked(samples, grids)
    weights = dict(incumbent.weights)
    inside: Block | None = None
    inputs: Stack | None = None
    learnt_from = max(1, count - max(1, count // 4))
    for step in execution.steps:
        block = chosen.get(step.outputs[0])
        if block is not None and time.perf_counter() - started < seconds and count > 1:
            inside, inputs = block, live_int8[block.input]
        advance(step, graph.weights, live_float, {}, count)
        if inside is None:
            advance(step, weights, live_int8, grids, count)
        elif step is inside.steps[-1]:
            assert inputs is not None
            learner = _Learner(inside, graph, weights, grids)
            targets = live_float[inside.output]
            learnt = learner.learn(inputs, targets, range(learnt_from), iterations)
            judged = range(learnt_from, count)
            before = learner.error(weights, inputs, targets, judged)
            if learner.error({**weights, **learnt}, inputs, targets, judged) < LEAST_GAIN * before:
                weights |= learnt
            for one in inside.steps:
                advance(one, weights, live_int8, grids, count)
                for name in one.done:
                    live_int8.pop(name, None)
            inside = inputs = None
        for name in step.done:
            live_float.pop(name, None)
            if inside is None:
                live_int8.pop(name, None)
    return incumbent.with_weights(weights)


@dataclass
class _Rounding:
    """What is learnt of one layer. `floor` and `choice` are in steps of `scale`."""

    layer: WeightLayer
    floor: Tensor
    choice: Tensor
    scale: Tensor
    slope: Tensor
    bias: Tensor | None
    shift: Tensor
    shift_unit: Tensor

    @classmethod
    def of(
        cls, layer: WeightLayer, trained: Array, weight: Array, bias: Tensor | None, spread: Tensor
    ) -> _Rounding:
        """Start from `weight`, which is on its grid, with the way to the `trained` one open to each integer."""
        scale = weight_scales(weight, layer.channel_axis)
        steps = np.rint(weight / scale)
        floor = np.where(trained / weight_scales(trained, layer.channel_axis) < steps, steps - 1, steps)
        share = np.where(floor < steps, START, 1 - START)
        # The largest weight keeps its integer, so that whoever derives the scale finds the same grid.
        pinned = np.abs(steps) >= WEIGHT_MAX
        floor[pinned] = steps[pinned]
        choice = np.log((share - GAMMA) / (ZETA - share))
        choice[pinned] = -np.inf
        return cls(
            layer,
            torch.from_numpy(floor.astype(np.float32)),
            torch.from_numpy(choice.astype(np.float32)).requires_grad_(),
            torch.from_numpy(scale),
            torch.ones(scale.shape, requires_grad=True),
            bias,
            torch.zeros(spread.shape, requires_grad=True),
            spread,
        )

    def up(self, hard: bool = False) -> Tensor:
        """Which weights go up: between nought and one while it is learnt."""
        relaxed = torch.clamp(torch.sigmoid(self.choice) * (ZETA - GAMMA) + GAMMA, 0.0, 1.0)
        return (relaxed >= 0.5).to(relaxed.dtype) if hard else relaxed

    def values(self, hard: bool = False) -> dict[str, Tensor]:
        """The weight and the bias by their names."""
        found = {self.layer.weight: (self.floor + self.up(hard)) * self.scale * self.slope}
        if self.layer.bias is not None and self.bias is not None:
            found[self.layer.bias] = self.bias + self.shift * self.shift_unit
        return found


class _Learner:
    """One block in torch, with the weights of the rest of the graph."""

    def __init__(
        self,
        block: Block,
        graph: FloatGraph,
        weights: Mapping[str, Array],
        grids: Mapping[str, ActivationGrid],
    ) -> None:
        self._block, self._graph, self._grids = block, graph, grids
        names = {name for step in block.steps for name in step.inputs if name in graph.weights}
        self._constants: dict[str, Any] = {name: _constant(weights[name]) for name in names}

    def _run(self, x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        """The block's output for samples along a first axis of their own: the graph has the shapes of one."""
        values = {**self._constants, **weights}
        made: Tensor = torch.vmap(lambda one: run_block(self._block, one, values, self._grids))(x)
        return made

    def _spread(self, x: Tensor) -> dict[str, Tensor]:
        """The standard deviation of each channel of each layer's output, over all samples."""
        made: dict[str, list[Tensor]] = {layer.output: [] for layer in self._block.layers}
        for one in x:
            seen: dict[str, Tensor] = {}
            run_block(self._block, one, self._constants, self._grids, seen)
            for name, parts in made.items():
                parts.append(torch.movedim(seen[name], self._graph.channel_axes[name], 0).flatten(1))
        return {name: torch.cat(parts, 1).std(1) for name, parts in made.items()}

    def learn(
        self, inputs: Stack, targets: Stack, samples: Sequence[int], iterations: int
    ) -> dict[str, Array]:
        """Weights on their grids, and biases, by name."""
        largest = max(inputs[0].size, targets[0].size)
        size = max(1, min(BATCH, len(samples), BATCH_VALUES // largest))
        with torch.no_grad():
            spread = self._spread(_batch(inputs, samples[:size]))
        roundings = []
        for layer in self._block.layers:
            bias = None if layer.bias is None else self._constants.get(layer.bias)
            trained = self._graph.weights[layer.weight]
            weight = self._constants[layer.weight].numpy()
            roundings.append(_Rounding.of(layer, trained, weight, bias, spread[layer.output]))
        base = self._noise({}, inputs, targets, samples[:size]) + 1e-20
        optimiser = torch.optim.Adam(
            [
                {"params": [r.choice for r in roundings], "lr": LEARNING_RATE},
                {"params": [p for r in roundings for p in (r.slope, r.shift)], "lr": LINE_RATE},
            ]
        )
        rng = np.random.default_rng(0)
        for iteration in range(iterations):
            picked = rng.choice(samples, size, replace=False).tolist()
            progress = (iteration / iterations - WARM_UP) / (DECIDED - WARM_UP)
            hard = progress > 1
            values = {name: value for r in roundings for name, value in r.values(hard).items()}
            out = self._run(_batch(inputs, picked), values)
            loss = functional.mse_loss(out, _batch(targets, picked)) / base
            if 0 < progress <= 1:
                beta = BETA[0] + (BETA[1] - BETA[0]) * progress
                open_ = torch.cat([(1 - (2 * r.up() - 1).abs() ** beta).flatten() for r in roundings])
                loss = loss + PRESSURE * open_.mean()
            # What can be tuned finely settles at the end.
            optimiser.param_groups[1]["lr"] = LINE_RATE * (1 - iteration / iterations)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            return {
                name: np.ascontiguousarray(value.numpy())
                for r in roundings
                for name, value in r.values(hard=True).items()
            }

    def error(
        self, weights: Mapping[str, Array], inputs: Stack, targets: Stack, samples: Sequence[int]
    ) -> float:
        """Mean square of what the block's output is off by."""
        own = {name: _constant(weights[name]) for name in self._constants}
        return self._noise(own, inputs, targets, samples)

    def _noise(
        self, weights: Mapping[str, Tensor], inputs: Stack, targets: Stack, samples: Sequence[int]
    ) -> float:
        with torch.no_grad():
            errors = [
                float(functional.mse_loss(self._run(_batch(inputs, [i]), weights), _batch(targets, [i])))
                for i in samples
            ]
        return float(np.mean(errors))


def _constant(value: Array) -> Any:
    """Floats as torch has them; shapes and axes are read as they are."""
    return torch.from_numpy(np.array(value)) if np.issubdtype(value.dtype, np.floating) else value


def _batch(stack: Stack, samples: Sequence[int]) -> Tensor:
    return torch.from_numpy(np.stack([stack[int(index)] for index in samples]))
