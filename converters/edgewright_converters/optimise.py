"""Clean-up of an exported float graph before its ranges are measured: constants folded, batch norm folded."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from edgewright_converters.export import ExportedGraph


def optimise(graph: ExportedGraph) -> ExportedGraph:
    """The same function with fewer operators.

    TFLite graphs come out of their converter folded already. For ONNX this is ONNX Runtime's basic level, in
    which batch norm is folded into the convolution before it, so that what is quantised is what will run.
    """
    if graph.format == "tflite":
        return graph
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "optimised.onnx"
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(target)
        options.log_severity_level = 3
        ort.InferenceSession(graph.data, options, providers=["CPUExecutionProvider"])
        optimised = onnx.load(str(target))
    _pool_means(optimised.graph)
    _name_nodes(optimised.graph)
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


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Give every node a name of its own, by which its kernel is found again in the quantised model."""
    taken: set[str] = set()
    for index, node in enumerate(graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.name or node.op_type}_{index}"
        taken.add(node.name)
