"""Blocks of a graph: what lies between two stored tensors that everything goes through, as torch runs it.

The unit of Li et al. 2021, "BRECQ: Pushing the Limit of Post-Training Quantization by Block Reconstruction",
section 3.2: a residual block, and a layer with its activation where nothing runs beside it. Torch has the
gradients that ONNX Runtime has not; it knows the operators between the layers of convolutional networks, and
blocks with others are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from edgewright_converters.execution import Execution, Step
from edgewright_converters.float_graph import WeightLayer, attribute
from edgewright_converters.quantise.grid import STEPS, ActivationGrid


@dataclass(frozen=True)
class Block:
    """Consecutive operators between two tensors that all goes through: a layer, or a residual block."""

    steps: tuple[Step, ...]
    input: str
    output: str
    layers: tuple[WeightLayer, ...]


def blocks(execution: Execution, stored: Collection[str]) -> tuple[Block, ...]:
    """The blocks of a graph, in order, that begin and end at a `stored` tensor and hold a layer to be rounded.

    Blocks with an operator that is not known here, or with a layer that may not be changed, are left out.
    """
    graph = execution.graph
    layers = {layer.output: layer for layer in graph.layers}
    if len(graph.inputs) != 1:
        return ()
    live = {graph.inputs[0].runtime_name}
    found: list[Block] = []
    start, begun = graph.inputs[0].runtime_name, 0
    for index, step in enumerate(execution.steps):
        live = (live | set(step.outputs)) - set(step.done)
        if len(live) != 1 or not live <= set(stored):
            continue
        (end,) = live
        steps = execution.steps[begun : index + 1]
        inside = tuple(layers[s.outputs[0]] for s in steps if s.outputs[0] in layers)
        known = all(s.node.op_type in _OPERATORS for s in steps)
        if inside and known and all(graph.changeable(one.weight, one.bias) for one in inside):
            found.append(Block(steps, start, end, inside))
        start, begun = end, index + 1
    return tuple(found)


def run_block(
    block: Block,
    x: Tensor,
    constants: Mapping[str, Tensor],
    grids: Mapping[str, ActivationGrid],
    seen: dict[str, Tensor] | None = None,
) -> Tensor:
    """The block's output on its grid; `seen` is given what each operator makes before it is rounded."""
    values = {**constants, block.input: x}
    for step in block.steps:
        node = step.node
        made = _OPERATORS[node.op_type](node, [values[name] if name else None for name in node.input])
        if seen is not None:
            seen[step.outputs[0]] = made
        grid = grids.get(step.outputs[0])
        values[step.outputs[0]] = made if grid is None else _on_grid(made, grid)
    return values[block.output]


def _on_grid(value: Tensor, grid: ActivationGrid) -> Tensor:
    """Rounded, with the gradient of clipping alone (the straight-through estimator of Bengio et al. 2013)."""
    low, high = -grid.zero_point * grid.scale, (STEPS - grid.zero_point) * grid.scale
    inside = torch.clamp(value, low, high)
    return inside + (torch.round(inside / grid.scale) * grid.scale - inside).detach()


Operator = Callable[[Any, Sequence[Any]], Tensor]


def _conv(node: Any, inputs: Sequence[Any]) -> Tensor:
    x, weight, *rest = inputs
    rank = weight.ndim - 2
    pads = attribute(node, "pads", [0] * (2 * rank))
    padding = [amount for i in reversed(range(rank)) for amount in (pads[i], pads[i + rank])]
    convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[rank - 1]
    made: Tensor = convolve(
        functional.pad(x, padding),
        weight,
        rest[0] if rest else None,
        tuple(attribute(node, "strides", [1] * rank)),
        0,
        tuple(attribute(node, "dilations", [1] * rank)),
        attribute(node, "group", 1),
    )
    return made


def _gemm(node: Any, inputs: Sequence[Any]) -> Tensor:
    x, weight, *rest = inputs
    made: Tensor = attribute(node, "alpha", 1.0) * (
        x @ (weight.T if attribute(node, "transB", 0) else weight)
    )
    return made + attribute(node, "beta", 1.0) * rest[0] if rest else made


def _clip(node: Any, inputs: Sequence[Any]) -> Tensor:
    x, low, high = (*inputs, None, None)[:3]
    return torch.clamp(x, low, high)


_OPERATORS: Mapping[str, Operator] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": lambda node, inputs: inputs[0] @ inputs[1],
    "Add": lambda node, inputs: inputs[0] + inputs[1],
    "Mul": lambda node, inputs: inputs[0] * inputs[1],
    "Relu": lambda node, inputs: torch.relu(inputs[0]),
    "Clip": _clip,
    "Sigmoid": lambda node, inputs: torch.sigmoid(inputs[0]),
    "HardSwish": lambda node, inputs: functional.hardswish(inputs[0]),
    "GlobalAveragePool": lambda node, inputs: inputs[0].mean(
        tuple(range(2, inputs[0].ndim)), keepdim=True
    ),
}  # fmt: skip
"""The operators of a block as torch has them: those between the layers of a convolutional network."""
