"""How much each layer's rounding damages the model's output, and which layers to leave in float for it.

Each layer is rounded alone, its weight and its output, and the noise at the model's output measured (as in Wu
et al. 2020, "Integer Quantization for Deep Learning Inference", section 5.3, who measure accuracy); noise of
different layers is nearly independent, so that what a set of layers buys is the sum of what each does. What a
layer costs in time is for `layer_cost` to say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright_converters.execution import Execution, side_by_side
from edgewright_converters.float_graph import ACTIVATIONS, FloatGraph, WeightLayer
from edgewright_converters.quantise.grid import ActivationGrid, rounded_weight

Array = NDArray[Any]


def damage(
    execution: Execution, ranges: Mapping[str, tuple[float, float]], samples: Sequence[Mapping[str, Array]]
) -> dict[str, float]:
    """For each layer by name: the noise power at the outputs, relative to their power, of rounding it alone."""
    graph = execution.graph
    reference = list(side_by_side(lambda sample: execution.run(sample, _as_it_is), samples))
    power = sum(_power(outputs) for outputs in reference) or 1.0
    found = {}
    for layer in graph.layers:
        stored = _stored_output(graph, layer)
        grid = ActivationGrid.over(*ranges[stored]) if stored in ranges else None
        weights = {
            **graph.weights,
            layer.weight: rounded_weight(graph.weights[layer.weight], layer.channel_axis),
        }

        def visit(
            name: str, value: Array, stored: str = stored, grid: ActivationGrid | None = grid
        ) -> Array | None:
            return grid.rounded(value) if grid is not None and name == stored else None

        outputs = list(side_by_side(lambda s, v=visit, w=weights: execution.run(s, v, w), samples))  # type: ignore[misc]
        noise = sum(
            _power({name: one[name] - other[name] for name in one})
            for one, other in zip(reference, outputs, strict=True)
        )
        found[layer.name] = noise / power
    return found


def relief(
    execution: Execution,
    weights: Mapping[str, Array],
    ranges: Mapping[str, tuple[float, float]],
    samples: Sequence[Mapping[str, Array]],
) -> dict[str, float]:
    """For each layer by name: by how much the noise at the outputs of a graph that is rounded as a whole goes
    down, relative to their power, when the layer alone is left in float. Below nought where it goes up.

    For fine-tuned `weights`: they rely on their rounding, so that what rounding one alone does says nothing. The
    reference is the graph of `execution`, with its own weights.
    """
    graph = execution.graph
    reference = list(side_by_side(lambda sample: execution.run(sample, _as_it_is), samples))
    power = sum(_power(outputs) for outputs in reference) or 1.0
    grids = {name: ActivationGrid.over(*ranges[name]) for name in graph.quantised_tensors if name in ranges}
    rounded = {n.weight: rounded_weight(weights[n.weight], n.channel_axis) for n in graph.layers}

    def noise(left: WeightLayer | None) -> float:
        used, stored = {**weights, **rounded}, None
        if left is not None:
            used[left.weight], stored = weights[left.weight], _stored_output(graph, left)

        def visit(name: str, value: Array) -> Array | None:
            return grids[name].rounded(value) if name in grids and name != stored else None

        outputs = side_by_side(lambda sample: execution.run(sample, visit, used), samples)
        return sum(
            _power({name: one[name] - other[name] for name in one})
            for one, other in zip(reference, outputs, strict=True)
        )

    before = noise(None)
    return {layer.name: (before - noise(layer)) / power for layer in graph.layers}


def most_for_least(damages: Mapping[str, float], seconds: Mapping[str, float]) -> list[str]:
    """Layers in the order in which to leave them out of INT8: most damage for each second that it costs first.

    One that INT8 does not make faster comes before all that it does, and one of unknown cost last.
    """

    def rank(name: str) -> tuple[bool, float]:
        cost = seconds.get(name, math.inf)
        return (cost <= 0, damages[name]) if cost <= 0 else (False, damages[name] / cost)

    return sorted((name for name in damages if damages[name] > 0), key=rank, reverse=True)


def most_of(damages: Mapping[str, float], share: float) -> list[str]:
    """The fewest layers that do `share` of the damage together, the worst first."""
    order = sorted(damages, key=lambda name: damages[name], reverse=True)
    sums = np.cumsum([damages[name] for name in order])
    return order[: int(np.searchsorted(sums, share * sums[-1])) + 1] if order else []


def _stored_output(graph: FloatGraph, layer: WeightLayer) -> str:
    """The tensor that holds a layer's result: that of the activation fused with it, if there is one."""
    users = graph.consumers.get(layer.output, [])
    fused = len(users) == 1 and users[0].op_type in ACTIVATIONS
    return str(users[0].output[0]) if fused else layer.output


def _as_it_is(name: str, value: Array) -> None:
    return None


def _power(outputs: Mapping[str, Array]) -> float:
    return float(sum(np.sum(np.square(v, dtype=np.float64)) for v in outputs.values() if v.dtype.kind == "f"))
