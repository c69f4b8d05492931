"""How the constants of an ONNX graph are stored in fewer bits while what uses them computes in float.

Weight-only quantisation is made of this; dynamic INT8 takes it for what has no integer kernel. Functions change
the graph in place and keep the names of nodes, by which their kernels are found again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgewright_converters.float_graph import attribute
from edgewright_converters.quantise.grid import WEIGHT_MAX, weight_scales

Array = NDArray[Any]
SMALLEST = 1024
"""Elements of the smallest constant that is worth its scales, as in ai-edge-quantizer's legacy recipe."""
BLOCK = 32
"""Weights to a scale: a power of two from 16 on. The float32 scale adds one bit to each of them."""
_MICROSOFT = "com.microsoft"
_CHANNEL_AXES = {"Conv": 0, "ConvTranspose": 1, "LSTM": 1, "GRU": 1, "RNN": 1}


def constants(graph: onnx.GraphProto) -> dict[str, Array]:
    """The initialisers by name."""
    return {i.name: numpy_helper.to_array(i) for i in graph.initializer}


def split_gemms(graph: onnx.GraphProto) -> None:
    """Write each Gemm with a constant weight as MatMul and Add: the quantisers know no Gemm and would skip it.

    ONNX Runtime's own rewrite leaves a Gemm that has factors, and renames the node; this one keeps its name.
    """
    values = constants(graph)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        weight = values.get(node.input[1]) if node.op_type == "Gemm" else None
        if weight is None or attribute(node, "transA", 0):
            nodes.append(node)
            continue
        alpha, beta = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
        transposed = bool(attribute(node, "transB", 0))
        name = f"{node.input[1]}_times_{alpha:g}{'_transposed' if transposed else ''}"
        add_constant(graph, name, alpha * (weight.T if transposed else weight))
        biased = len(node.input) > 2 and bool(node.input[2])
        product = f"{node.output[0]}_product" if biased else node.output[0]
        nodes.append(helper.make_node("MatMul", [node.input[0], name], [product], name=node.name))
        if biased:
            bias = node.input[2]
            if beta != 1.0 and bias in values:
                bias = f"{bias}_times_{beta:g}"
                add_constant(graph, bias, beta * values[node.input[2]])
            nodes.append(helper.make_node("Add", [product, bias], [node.output[0]], name=f"{node.name}_bias"))
    _replace(graph, nodes)


def store_embeddings(graph: onnx.GraphProto, bits: int) -> None:
    """Look embeddings up in blocks of integers: GatherBlockQuantized, symmetric about the middle of the range.

    The quantiser of ONNX Runtime knows 4 bits alone, and raises the opset for them; packed into bytes they do
    without.
    """
    values = constants(graph)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        table = values.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or not _worth_storing(table) or table.ndim != 2 or table.shape[1] % 2:
            nodes.append(node)
            continue
        if attribute(node, "axis", 0) != 0:
            nodes.append(node)
            continue
        stored, scales = _blocks(table, bits)
        names = [f"{node.input[0]}_rows{bits}", f"{node.input[0]}_row_scales{bits}"]
        for name, array in zip(names, (stored, scales), strict=True):
            add_constant(graph, name, array)
        nodes.append(
            helper.make_node(
                "GatherBlockQuantized",
                [names[0], node.input[1], names[1]],
                list(node.output),
                name=node.name,
                domain=_MICROSOFT,
                gather_axis=0,
                quantize_axis=1,
                block_size=BLOCK,
                bits=bits,
            )
        )
    _replace(graph, nodes)


def store_int8(graph: onnx.GraphProto, operators: frozenset[str]) -> None:
    """Put the weights of `operators` behind DequantizeLinear as INT8, symmetric with a scale for each channel."""
    values = constants(graph)
    dequantised: dict[str, onnx.NodeProto] = {}
    for node in graph.node:
        if node.op_type not in operators:
            continue
        last = 2 if node.op_type in ("Conv", "ConvTranspose") else 3
        axis = _CHANNEL_AXES[node.op_type]
        for index in range(1, min(last, len(node.input))):
            name = node.input[index]
            if not _worth_storing(values.get(name)):
                continue
            stored = f"{name}_int8_{axis}"
            if stored not in dequantised:
                scales = weight_scales(values[name], axis).astype(np.float32)
                add_constant(
                    graph,
                    stored,
                    np.clip(np.rint(values[name] / scales), -WEIGHT_MAX, WEIGHT_MAX).astype(np.int8),
                )
                add_constant(graph, f"{stored}_scales", scales.ravel())
                dequantised[stored] = helper.make_node(
                    "DequantizeLinear",
                    [stored, f"{stored}_scales"],
                    [f"{stored}_real"],
                    name=f"{stored}_real",
                    axis=axis,
                )
            node.input[index] = f"{stored}_real"
    _replace(graph, [*dequantised.values(), *graph.node])


def add_constant(graph: onnx.GraphProto, name: str, value: Array) -> None:
    """Add an initialiser unless there is one of that name, which is the same."""
    if all(initialiser.name != name for initialiser in graph.initializer):
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))


def drop_unused_constants(graph: onnx.GraphProto) -> None:
    """Keep one of each initialiser that is used."""
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    kept = {i.name: i for i in graph.initializer if i.name in used}
    del graph.initializer[:]
    graph.initializer.extend(kept.values())


def _worth_storing(value: Array | None) -> bool:
    return value is not None and value.dtype == np.float32 and value.size >= SMALLEST


def _blocks(table: Array, bits: int) -> tuple[Array, Array]:
    """Rows in blocks of unsigned integers about 2^(bits-1), two to a byte at 4 bits, and each block's scale."""
    rows, columns = table.shape
    middle = 2 ** (bits - 1)
    count = -(-columns // BLOCK)
    padded = np.zeros((rows, count * BLOCK), np.float32)
    padded[:, :columns] = table
    blocks = padded.reshape(rows, count, BLOCK)
    # The value of largest magnitude gets the one integer more that there is on the negative side.
    extreme = np.take_along_axis(blocks, np.abs(blocks).argmax(2, keepdims=True), 2)
    scales = np.where(extreme == 0, np.float32(1), extreme / np.float32(-middle))
    integers = np.clip(np.rint(blocks / scales) + middle, 0, 2 * middle - 1).astype(np.uint8)
    flat = integers.reshape(rows, -1)[:, :columns]
    packed = flat if bits == 8 else flat[:, 0::2] | (flat[:, 1::2] << 4)
    return packed, scales[:, :, 0]


def _replace(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    drop_unused_constants(graph)
