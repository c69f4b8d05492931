from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx_graphs import Array, float_graph, node, normal
from torch_layers import MODELS, prepared

from edgewright_converters.execution import Execution
from edgewright_converters.float_graph import FloatGraph
from edgewright_converters.torch_graph import NotTrainableError, TorchGraph, check_trainable

INTS = {
    "pads": np.array([0, 0, 1, 2, 0, 0, 0, 1]), "first": np.array([1]), "last": np.array([7]),
    "rows": np.array([2]),
    "step": np.array([2]), "pair": np.array([2, 6]), "flat": np.array([1, -1]), "kept": np.array([0, 8, 64]),
    "picked": np.array([3, 0]), "wide": np.array([1, 8, 8, 8]), "image": np.array([2, 3]),
}  # fmt: skip
FLOATS = {"half": np.float32(0.5), "three": np.float32(3.0)}
CASES = [
    ("Add", "x half", {}), ("AveragePool", "x", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}),
    ("AveragePool", "x", {"kernel_shape": [2, 2], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    ("Clip", "x - half", {}), ("Concat", "x x", {"axis": 1}), ("Div", "x three", {}), ("Erf", "x", {}),
    ("Exp", "x", {}), ("Expand", "x wide", {}), ("Flatten", "x", {"axis": 2}), ("Gather", "x picked", {"axis": 2}),
    ("Gelu", "x", {}), ("Gelu", "x", {"approximate": "tanh"}), ("GlobalAveragePool", "x", {}),
    ("HardSigmoid", "x", {"alpha": 0.3}), ("HardSwish", "x", {}), ("Identity", "x", {}),
    ("LeakyRelu", "x", {"alpha": 0.2}), ("MaxPool", "x", {"kernel_shape": [3, 3], "pads": [1, 0, 0, 1]}),
    ("Mul", "x x", {}), ("Neg", "x", {}), ("Pad", "x pads", {}), ("Pow", "x three", {}),
    ("ReduceMean", "x image", {"keepdims": 0}), ("Relu", "x", {}), ("Reshape", "x kept", {}), ("Sigmoid", "x", {}),
    ("Slice", "x first last image step", {}), ("Slice", "x first last rows", {}), ("Softmax", "x", {"axis": 1}),
    ("Sub", "half x", {}), ("Tanh", "x", {}), ("Transpose", "x", {"perm": [0, 2, 3, 1]}),
    ("Unsqueeze", "x first", {}),
]  # fmt: skip


def close(graph: FloatGraph, x: Array) -> None:
    """The graph in torch on all samples at once is ONNX Runtime's on one after another."""
    execution = Execution(graph)
    (name,) = [spec.runtime_name for spec in graph.outputs]
    expected = np.concatenate(
        [execution.run({"x": x[i : i + 1]}, lambda n, v: None)[name] for i in range(len(x))]
    )
    made = TorchGraph(graph)(torch.from_numpy(x))[name]
    np.testing.assert_allclose(made.reshape(expected.shape).numpy(), expected, atol=2e-5)
    check_trainable(graph, {"x": x[:1]})


@pytest.mark.parametrize(("operator", "inputs", "attributes"), CASES)
def test_operator_in_torch_is_that_of_onnx_runtime(
    operator: str, inputs: str, attributes: dict[str, object]
) -> None:
    if operator == "Slice":
        inputs = inputs.replace("image", "rows")
    names = set(inputs.split())
    weights = {n: np.asarray(v) for n, v in {**INTS, **FLOATS}.items() if n in names}
    graph = float_graph([node(operator, inputs, "y", **attributes)], {"x": (1, 8, 8, 8)}, ["y"], weights)
    close(graph, normal(3, 8, 8, 8))


def test_parts_and_squeezed_axes_are_those_of_onnx_runtime() -> None:
    nodes = [
        node("Split", "x pair", "a b", axis=1), node("ReduceMean", "b image", "m"),
        node("Squeeze", "m image", "s"),
        node("Sqrt", "e", "r"), node("Exp", "s", "e"), node("ReduceMean", "a image", "n", keepdims=0),
        node("Concat", "r n", "y", axis=1),
    ]  # fmt: skip
    nodes[3], nodes[4] = nodes[4], nodes[3]
    weights = {name: INTS[name] for name in ("pair", "image")}
    close(float_graph(nodes, {"x": (1, 8, 4, 4)}, ["y"], weights), normal(3, 8, 4, 4))


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_layer_runs_in_torch_as_it_was_exported(name: str) -> None:
    one = prepared(name)
    graph = one.graphs.graph
    assert graph is not None
    samples = [graph.feed(sample.inputs) for sample in one.samples.head(3)]
    check_trainable(graph, samples[0])
    spec = graph.inputs[0].runtime_name
    made = TorchGraph(graph)(torch.from_numpy(np.concatenate([sample[spec] for sample in samples])))
    for index, sample in enumerate(samples):
        expected = one.source.run({graph.inputs[0].name: sample[spec]})
        for output, value in expected.items():
            np.testing.assert_allclose(made[output][index : index + 1].numpy(), value, atol=1e-4)


def test_operator_without_a_gradient_is_named() -> None:
    graph = float_graph([node("Sin", "x", "y")], {"x": (1, 4)}, ["y"], {})
    with pytest.raises(NotTrainableError, match="operator Sin of node 'y' has no gradient here"):
        check_trainable(graph, {"x": normal(1, 4)})


def test_operator_that_torch_would_compute_otherwise_is_refused() -> None:
    nodes = [node("Conv", "x w", "y", auto_pad="SAME_LOWER", strides=[2, 2])]
    graph = float_graph(nodes, {"x": (1, 2, 6, 6)}, ["y"], {"w": normal(2, 2, 3, 3)})
    with pytest.raises(NotTrainableError):
        check_trainable(graph, {"x": normal(1, 2, 6, 6)})
