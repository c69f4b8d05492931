from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from onnx_graphs import conv_chain, float_graph, node, normal, run_whole, samples_of

from edgewright_converters.float_graph import FloatGraph
from edgewright_converters.optimise import optimise


def test_graph_with_its_own_weights_is_the_file_it_was_read_from() -> None:
    graph = conv_chain()
    again = FloatGraph.of(graph.exported())
    assert set(again.weights) == set(graph.weights)
    assert all(np.array_equal(again.weights[name], graph.weights[name]) for name in graph.weights)
    (sample,) = samples_of(graph, 1)
    np.testing.assert_array_equal(run_whole(again, sample)["y"], run_whole(graph, sample)["y"])


def test_replaced_weight_reaches_the_file_and_the_first_graph_keeps_its_own() -> None:
    graph = conv_chain()
    other = graph.with_weights({"b2": np.ones(4, np.float64)})
    stored = {i.name: i for i in onnx.load_from_string(other.exported().data).graph.initializer}["b2"]
    assert stored.data_type == onnx.TensorProto.FLOAT
    assert np.array_equal(onnx.numpy_helper.to_array(stored), np.ones(4))
    assert not np.array_equal(graph.weights["b2"], np.ones(4))


def test_layers_tell_the_axis_of_their_output_channels() -> None:
    nodes = [
        node("Conv", "x w0 b0", "c", group=2),
        node("ConvTranspose", "c w1 b1", "t"),
        node("GlobalAveragePool", "t", "p"),
        node("Flatten", "p", "f"),
        node("Gemm", "f w2 b2", "g"),
        node("Gemm", "g w3", "h", transB=1),
        node("MatMul", "h w4", "m"),
        node("Add", "m b4", "y"),
    ]
    weights = {
        "w0": normal(6, 2, 3, 3), "b0": normal(6), "w1": normal(6, 5, 2, 2), "b1": normal(5), "w2": normal(5, 7),
        "b2": normal(7), "w3": normal(8, 7), "w4": normal(8, 9), "b4": normal(9),
    }  # fmt: skip
    graph = float_graph(nodes, {"x": (1, 4, 8, 8)}, ["y"], weights)
    assert [(one.weight, one.bias, one.channel_axis, one.groups) for one in graph.layers] == [
        ("w0", "b0", 0, 2), ("w1", "b1", 1, 1), ("w2", "b2", 1, 1), ("w3", None, 0, 1), ("w4", "b4", 1, 1)
    ]  # fmt: skip
    assert [graph.weights[one.weight].shape[one.channel_axis] for one in graph.layers] == [6, 5, 7, 8, 9]


def test_product_of_two_activations_is_no_layer() -> None:
    nodes = [node("Transpose", "x", "t", perm=[0, 2, 1]), node("MatMul", "x t", "y")]
    assert float_graph(nodes, {"x": (1, 3, 4)}, ["y"], {}).layers == ()


def test_tensor_before_a_fused_activation_is_not_stored() -> None:
    nodes = [
        node("Conv", "x w b", "c"),
        node("Relu", "c", "r"),
        node("Conv", "r v d", "e"),
        node("Relu", "e", "s"),
        node("Add", "e s", "y"),
    ]
    weights = {"w": normal(4, 3, 1, 1), "b": normal(4), "v": normal(4, 4, 1, 1), "d": normal(4)}
    graph = float_graph(nodes, {"x": (1, 3, 4, 4)}, ["y"], weights)
    # `e` is used beside its activation too, so that it has to be stored.
    assert graph.quantised_tensors == {"x", "r", "e", "s", "y"}


def test_repair_may_change_neither_what_is_fixed_nor_what_is_shared() -> None:
    nodes = [node("Gemm", "x w b", "h", transB=1), node("Gemm", "h w c", "y", transB=1)]
    graph = float_graph(nodes, {"x": (2, 4)}, ["y"], {"w": normal(4, 4), "b": normal(4), "c": normal(4)})
    assert graph.changeable("b", None) and not graph.changeable("w", "b")
    assert not replace(graph, fixed=frozenset({"c"})).changeable("b", "c")


def test_optimised_graph_has_a_bias_for_every_layer_and_shares_none() -> None:
    nodes = [
        node("Conv", "x w0", "c0"),
        node("ConvTranspose", "c0 w1", "c1", group=2),
        node("Conv", "c1 w2 b", "c2"),
        node("Conv", "c2 w2 b", "c3"),
        node("Flatten", "c3", "f"),
        node("Gemm", "f w3", "g", transB=1),
        node("Gemm", "g w4 -", "y"),
    ]
    weights = {
        "w0": normal(4, 3, 1, 1), "w1": normal(4, 3, 2, 2), "w2": normal(6, 6, 1, 1), "b": normal(6),
        "w3": normal(5, 6 * 25), "w4": normal(5, 3),
    }  # fmt: skip
    graph = float_graph(nodes, {"x": (1, 3, 4, 4)}, ["y"], weights)
    (sample,) = samples_of(graph, 1)
    optimised = FloatGraph.of(optimise(graph.exported()))
    np.testing.assert_allclose(
        run_whole(optimised, sample)["y"], run_whole(graph, sample)["y"], rtol=1e-4, atol=1e-4
    )
    biases = [one.node.input[2] for one in optimised.layers]
    assert len(set(biases)) == len(biases) == 6
    assert sum(not optimised.weights[name].any() for name in biases) == 4


def test_factors_of_a_product_are_multiplied_into_its_constants() -> None:
    nodes = [
        node("Gemm", "x w b", "h", alpha=0.5, beta=2.0, transB=1),
        node("Gemm", "h w b", "y", alpha=3.0),
    ]
    graph = float_graph(nodes, {"x": (2, 4)}, ["y"], {"w": normal(4, 4), "b": normal(4)})
    optimised = FloatGraph.of(optimise(graph.exported()))
    (sample,) = samples_of(graph, 1)
    np.testing.assert_allclose(run_whole(optimised, sample)["y"], run_whole(graph, sample)["y"], rtol=1e-4)
    assert all(a.name not in ("alpha", "beta") for one in optimised.nodes for a in one.attribute)
