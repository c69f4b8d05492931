"""Clean-up of an exported float graph before its ranges are measured: constants and batch norm folded, biases."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from edgewright.durable_file import temporary_folder_full
from edgewright.errors import ConversionError
from edgewright_converters.export import ExportedGraph
from edgewright_converters.tflite_graph import with_own_biases
from edgewright_converters.tflite_layout import without_layout_transposes


def optimise(graph: ExportedGraph) -> ExportedGraph:
    """The same function with fewer operators.

    TFLite graphs come out of their converter folded already, and only get their biases. For ONNX this is ONNX
    Runtime's basic level, in which batch norm is folded into the convolution before it, so that what is quantised
    is what will run. Raises `ConversionError`.
    """
    if graph.format == "tflite":
        return with_own_biases(without_layout_transposes(graph))
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "optimised.onnx"
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(target)
        options.log_severity_level = 3
        try:
            ort.InferenceSession(graph.data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors have no base of their own
            reason = str(error).strip().splitlines()[0][:200]
            if "serialization failed" in reason:
                raise temporary_folder_full() from None
            raise ConversionError(
                f"ONNX Runtime does not take the exported graph ({reason})", remedy="replace what it names"
            ) from None
        optimised = onnx.load(str(target))
    _pool_means(optimised.graph)
    _name_nodes(optimised.graph)
    _own_biases(optimised.graph)
    _no_factors(optimised.graph)
    optimised = onnx.shape_inference.infer_shapes(optimised)
    return replace(graph, data=optimised.SerializeToString())


def _pool_means(graph: onnx.GraphProto) -> None:
    """Write a mean over the two image axes as GlobalAveragePool, which has an INT8 kernel; ReduceMean has none."""
    constants = {i.name: tuple(numpy_helper.to_array(i).ravel().tolist()) for i in graph.initializer}
    ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in (*graph.value_info, *graph.input)}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        axes = constants.get(node.input[1], ()) if len(node.input) > 1 else tuple(attributes.get("axes", ()))
        if (
            node.op_type != "ReduceMean"
            or ranks.get(node.input[0]) != 4
            or sorted(axis % 4 for axis in axes) != [2, 3]
        ):
            nodes.append(node)
            continue
        keep = bool(attributes.get("keepdims", 1))
        pooled = node.output[0] if keep else f"{node.output[0]}_pooled"
        nodes.append(helper.make_node("GlobalAveragePool", [node.input[0]], [pooled], name=node.name))
        if not keep:
            nodes.append(helper.make_node("Flatten", [pooled], [node.output[0]], name=f"{node.name}_flat"))
    del graph.node[:]
    graph.node.extend(nodes)


def _own_biases(graph: onnx.GraphProto) -> None:
    """Give every convolution and Gemm a bias of its own, nought where it has none: a repair moves it."""
    constants = {i.name: i for i in graph.initializer}
    taken: set[str] = set()
    for node in graph.node:
        weight = constants.get(node.input[1]) if node.op_type in ("Conv", "ConvTranspose", "Gemm") else None
        if weight is None or weight.data_type != onnx.TensorProto.FLOAT:
            continue
        bias = node.input[2] if len(node.input) > 2 else ""
        if bias and (bias not in constants or bias not in taken):
            taken.add(bias)
            continue
        own = graph.initializer.add()
        if bias:
            own.CopyFrom(constants[bias])
        else:
            own.CopyFrom(numpy_helper.from_array(np.zeros(_output_channels(node, weight), np.float32)))
        own.name = f"{node.name}_bias"
        node.input[:] = [*node.input[:2], own.name]


def _output_channels(node: onnx.NodeProto, weight: onnx.TensorProto) -> int:
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "ConvTranspose":
        return int(weight.dims[1] * attributes.get("group", 1))
    return int(weight.dims[1 if node.op_type == "Gemm" and not attributes.get("transB", 0) else 0])


def _no_factors(graph: onnx.GraphProto) -> None:
    """Multiply the factors of a Gemm into its constants: quantised, its bias would lose its own."""
    constants = {i.name: i for i in graph.initializer}
    for node in graph.node:
        factors = [a for a in node.attribute if a.name in ("alpha", "beta") and a.f != 1.0]
        if node.op_type != "Gemm" or not factors or not set(node.input[1:]) <= set(constants):
            continue
        for factor in factors:
            index = 1 if factor.name == "alpha" else 2
            name = f"{node.input[index]}_of_{node.name}"
            value = numpy_helper.to_array(constants[node.input[index]]) * np.float32(factor.f)
            graph.initializer.append(numpy_helper.from_array(value, name))
            node.input[index] = name
            node.attribute.remove(factor)


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Give every node a name of its own, by which its kernel is found again in the quantised model."""
    taken: set[str] = set()
    for index, node in enumerate(graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.name or node.op_type}_{index}"
        taken.add(node.name)
