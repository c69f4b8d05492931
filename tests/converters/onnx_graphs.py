"""Float graphs of a few ONNX operators, in the form that the quantisation algorithms take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgewright_converters.execution import Execution
from edgewright_converters.export import ExportedGraph, spec_of
from edgewright_converters.float_graph import FloatGraph
from edgewright_converters.observation import TensorStatistics, observe

Array = NDArray[Any]
RNG = np.random.default_rng(7)


def normal(*shape: int, scale: float = 1.0) -> Array:
    return (scale * RNG.standard_normal(shape)).astype(np.float32)


def node(operator: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    """A node named as its output; `inputs` are separated by blanks, and `-` stands for one left out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(operator, names, output.split(), name=output.split()[0], **attributes)


def exported_graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, ...]],
    outputs: Sequence[str],
    weights: Mapping[str, Array],
    dtype: str = "float32",
) -> ExportedGraph:
    """The nodes as a float ONNX file with every shape inferred; `dtype` is that of its inputs."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    proto = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(n, kind, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    made = {
        v.name: np.empty([d.dim_value for d in v.type.tensor_type.shape.dim], np.float32)
        for v in model.graph.output
    }
    return ExportedGraph(
        "onnx",
        model.SerializeToString(),
        tuple(spec_of(n, n, np.empty(s, dtype)) for n, s in inputs.items()),
        tuple(spec_of(n, n, array) for n, array in made.items()),
    )


def float_graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, ...]],
    outputs: Sequence[str],
    weights: Mapping[str, Array],
    dtype: str = "float32",
) -> FloatGraph:
    return FloatGraph.of(exported_graph(nodes, inputs, outputs, weights, dtype))


def samples_of(graph: FloatGraph, count: int = 8, scale: float = 1.0) -> list[dict[str, Array]]:
    return [
        {spec.runtime_name: normal(*spec.shape, scale=scale) for spec in graph.inputs} for _ in range(count)
    ]


def statistics_of(graph: FloatGraph, samples: Sequence[Mapping[str, Array]]) -> dict[str, TensorStatistics]:
    return observe(Execution(graph), samples, "data")


def bounds_of(graph: FloatGraph, samples: Sequence[Mapping[str, Array]]) -> dict[str, tuple[float, float]]:
    """True minimum and maximum of every tensor."""
    return {name: found.range for name, found in statistics_of(graph, samples).items()}


def run_whole(graph: FloatGraph, sample: Mapping[str, Array]) -> dict[str, Array]:
    """The graph in one ONNX Runtime session, nothing of ours between."""
    session = ort.InferenceSession(graph.exported().data, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(sample)), strict=True))


def conv_chain(*, activation: str = "Relu", channels: int = 6, unequal: bool = True) -> FloatGraph:
    """Convolution, activation, convolution; `unequal` channels lie three orders of magnitude apart."""
    weight = normal(channels, 3, 3, 3, scale=0.3)
    bias = normal(channels, scale=0.1)
    if unequal:
        spread = np.geomspace(0.003, 1.0, channels).astype(np.float32)
        weight, bias = weight * spread[:, None, None, None], bias * spread
    weights = {"w1": weight, "b1": bias, "w2": normal(4, channels, 1, 1), "b2": normal(4, scale=0.1)}
    if activation == "Clip":
        weights |= {"zero": np.float32(0), "six": np.float32(6)}  # type: ignore[dict-item]
    between = node("Clip", "c zero six", "a") if activation == "Clip" else node(activation, "c", "a")
    nodes = [node("Conv", "x w1 b1", "c", pads=[1, 1, 1, 1]), between, node("Conv", "a w2 b2", "y")]
    return float_graph(nodes, {"x": (1, 3, 8, 8)}, ["y"], weights)
