"""What one inference of a float ONNX graph costs: multiply-accumulates and bytes of each operator.

The cost model in `edgewright_profiles.cost` turns this into a predicted latency on a profile.
"""

from __future__ import annotations

import math

import onnx

from edgewright_converters.export import ExportedGraph
from edgewright_profiles.cost import Kind, OperatorWork


def operator_work(graph: ExportedGraph, bytes_per_element: int) -> tuple[OperatorWork, ...]:
    """The work of each operator of an optimised float ONNX graph, held at `bytes_per_element`.

    MACs by operator: convolution, output elements × kernel elements × input channels a group; matrix product,
    output elements × inner dimension; recurrent layer, time steps × its weights; others none.
    """
    proto = onnx.shape_inference.infer_shapes(onnx.load_from_string(graph.data)).graph
    shapes = {
        value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
        for value in (*proto.value_info, *proto.input, *proto.output)
    }
    weights = {initialiser.name: tuple(initialiser.dims) for initialiser in proto.initializer}
    work = []
    for node in proto.node:
        outputs = sum(math.prod(shapes[name]) for name in node.output if name in shapes)
        activations = outputs + sum(math.prod(shapes[name]) for name in node.input if name in shapes)
        weight_elements = sum(math.prod(weights[name]) for name in node.input if name in weights)
        kind, macs = _macs(node, shapes, weights, outputs)
        work.append(
            OperatorWork(
                name=node.name or node.output[0],
                kind=kind,
                macs=macs,
                weight_bytes=weight_elements * bytes_per_element,
                activation_bytes=activations * bytes_per_element,
            )
        )
    return tuple(work)


def _macs(
    node: onnx.NodeProto,
    shapes: dict[str, tuple[int, ...]],
    weights: dict[str, tuple[int, ...]],
    outputs: int,
) -> tuple[Kind, int]:
    if node.op_type in ("Conv", "ConvTranspose") and node.input[1] in weights:
        kernel = weights[node.input[1]]
        group = next((a.i for a in node.attribute if a.name == "group"), 1)
        if node.op_type == "ConvTranspose":
            elements = math.prod(shapes.get(node.input[0], (0,)))
            return "conv", elements * math.prod(kernel[1:])
        # A kernel that sees one input channel and is one of many groups is depthwise.
        kind: Kind = "depthwise_conv" if group > 1 and kernel[1] == 1 else "conv"
        return kind, outputs * math.prod(kernel[1:])
    if node.op_type in ("Gemm", "MatMul"):
        left = shapes.get(node.input[0]) or weights.get(node.input[0]) or (0,)
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        return "matmul", outputs * left[0 if transposed else -1]
    if node.op_type in ("LSTM", "GRU", "RNN"):
        # Time steps and batch come first in either `layout`.
        steps = math.prod(shapes.get(node.input[0], (0,))[:2])
        return "matmul", steps * sum(math.prod(weights.get(name, (0,))) for name in node.input[1:3])
    return "elementwise", 0
