from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_graphs import conv_chain, float_graph, node, normal, run_whole, samples_of

from edgewright.errors import ConversionError
from edgewright_converters.execution import WORKERS, Execution, side_by_side
from edgewright_converters.export import ExportedGraph, spec_of
from edgewright_converters.float_graph import FloatGraph


def branching() -> FloatGraph:
    """One tensor used twice, an operator with two outputs of which one is left out, and an optional input."""
    nodes = [
        node("Conv", "x w b", "c", pads=[1, 1, 1, 1]),
        node("Relu", "c", "r"),
        node("Add", "r c", "s"),
        node("TopK", "s k", "top places", axis=3),
        node("Clip", "top - high", "t"),
        node("ReduceMean", "t axes", "y", keepdims=0),
        node("GlobalAveragePool", "s", "z"),
    ]
    weights = {
        "w": normal(3, 3, 3, 3), "b": normal(3), "k": np.array([4], np.int64),
        "high": np.array(1.5, np.float32), "axes": np.array([2, 3], np.int64),
    }  # fmt: skip
    return float_graph(nodes, {"x": (1, 3, 8, 8)}, ["y", "z", "r"], weights)


def look(name: str, value: Any) -> None:
    return None


@pytest.mark.parametrize("graph", [conv_chain(), branching()], ids=["chain", "branching"])
def test_operators_one_by_one_give_what_the_whole_graph_gives(graph: FloatGraph) -> None:
    execution = Execution(graph)
    for sample in samples_of(graph, 3):
        expected, got = run_whole(graph, sample), execution.run(sample, look)
        assert set(got) == set(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(got[name], value, rtol=1e-5, atol=1e-6)


def test_every_tensor_is_visited_once_in_the_order_in_which_it_is_made() -> None:
    graph = branching()
    seen: list[str] = []
    Execution(graph).run(samples_of(graph, 1)[0], lambda name, value: seen.append(name))
    assert seen == ["x", "c", "r", "s", "top", "places", "t", "y", "z"]


def test_what_the_visitor_returns_takes_the_tensors_place() -> None:
    graph = conv_chain()

    def silence(name: str, value: Any) -> Any:
        return np.zeros_like(value) if name == "a" else None

    outputs = Execution(graph).run(samples_of(graph, 1)[0], silence)
    expected = np.broadcast_to(graph.weights["b2"][None, :, None, None], outputs["y"].shape)
    np.testing.assert_allclose(outputs["y"], expected)


def test_other_weights_need_no_new_execution() -> None:
    graph = conv_chain()
    execution, sample = Execution(graph), samples_of(graph, 1)[0]
    changed = {**graph.weights, "w2": graph.weights["w2"] * 2, "b2": graph.weights["b2"] * 2}
    twice = execution.run(sample, look, changed)["y"]
    np.testing.assert_allclose(twice, 2 * execution.run(sample, look)["y"], rtol=1e-5, atol=1e-6)


def test_tensor_is_let_go_after_its_last_use() -> None:
    graph = branching()
    alive: dict[str, Any] = {}
    at_the_end: list[str] = []

    def visit(name: str, value: Any) -> None:
        if name == "z":
            gc.collect()
            at_the_end.extend(n for n, reference in alive.items() if reference() is not None)
        alive[name] = weakref.ref(value)

    Execution(graph).run({"x": normal(1, 3, 8, 8)}, visit)
    assert "c" not in at_the_end and "top" not in at_the_end and "t" not in at_the_end
    assert {"r", "y"} <= set(at_the_end)


def test_control_flow_is_refused_in_one_line() -> None:
    def branch(operator: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info("inner", TensorProto.FLOAT, [1, 4])
        return helper.make_graph([helper.make_node(operator, ["x"], ["inner"])], operator, [], [out])

    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "nought"], ["more"]),
        helper.make_node(
            "If", ["more"], ["y"], name="gate", then_branch=branch("Relu"), else_branch=branch("Neg")
        ),
    ]
    value = helper.make_tensor_value_info
    proto = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, [1, 4])],
        [value("y", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(np.float32(0), "nought")],
    )
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    spec = spec_of("x", "x", np.empty((1, 4), np.float32))
    graph = FloatGraph.of(ExportedGraph("onnx", model.SerializeToString(), (spec,), (spec,)))
    with pytest.raises(ConversionError, match="If of node 'gate' is control flow") as caught:
        Execution(graph).run({"x": normal(1, 4)}, look)
    assert "\n" not in str(caught.value)


def test_side_by_side_keeps_the_order_and_takes_few_at_a_time() -> None:
    taken = 0

    def source() -> Any:
        nonlocal taken
        for number in range(20):
            taken += 1
            yield number

    results = side_by_side(lambda number: number * number, source())
    for number in range(20):
        assert next(results) == number * number
        assert taken <= number + 2 * WORKERS


def test_shape_that_depends_on_the_data_is_refused_with_the_operator() -> None:
    nodes = [node("NonZero", "x", "places"), node("Cast", "places", "y", to=TensorProto.FLOAT)]
    execution = Execution(float_graph(nodes, {"x": (1, 4)}, ["y"], {}))
    with pytest.raises(
        ConversionError, match=r"a shape depends on the data: Cast of node .*; compute it after"
    ):
        execution.run({"x": np.array([[0, 1, 0, 2]], np.float32)}, look)


def test_output_that_no_input_changes_is_refused() -> None:
    graph = float_graph([node("Relu", "x", "r")], {"x": (1, 4)}, ["w"], {"w": normal(1, 4)})
    with pytest.raises(ConversionError, match="output 'w' is the same whatever its inputs are"):
        _ = Execution(graph).steps
