"""Blocks of a graph: what lies between two stored tensors that everything goes through, as torch runs it.

The unit of Li et al. 2021, "BRECQ: Pushing the Limit of Post-Training Quantization by Block Reconstruction",
section 3.2: a residual block, and a layer with its activation where nothing runs beside it. Torch has the
gradients that ONNX Runtime has not; blocks with an operator that is not in `torch_operators` are left out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import Tensor

from edgewright_converters.execution import Execution, Step
from edgewright_converters.float_graph import WeightLayer
from edgewright_converters.quantise.fake_quantisation import on_grid
from edgewright_converters.quantise.grid import ActivationGrid
from edgewright_converters.torch_operators import OPERATORS, run_node


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
        known = all(s.node.op_type in OPERATORS for s in steps)
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
        made = run_node(node, values)
        if seen is not None:
            seen |= made
        for name, value in made.items():
            grid = grids.get(name)
            values[name] = value if grid is None else on_grid(value, grid.scale, grid.zero_point)
    return values[block.output]
