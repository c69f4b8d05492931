from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from onnx_graphs import Array, bounds_of, conv_chain, float_graph, node, normal, samples_of

from edgewright_converters.execution import Execution
from edgewright_converters.float_graph import FloatGraph
from edgewright_converters.quantise.adaptive_rounding import adaptively_rounded
from edgewright_converters.quantise.block import blocks
from edgewright_converters.quantise.grid import ActivationGrid, rounded_weight
from edgewright_converters.quantise.reconstruction import reconstructed
from edgewright_converters.quantise.sweep import sweep

Samples = Sequence[Mapping[str, Array]]


def noise(
    graph: FloatGraph, weights: FloatGraph, ranges: Mapping[str, tuple[float, float]], on: Samples
) -> float:
    """Power of what is wrong at the outputs with `weights` and activations as INT8 stores them."""
    axes = {layer.weight: layer.channel_axis for layer in graph.layers}
    stored = {n: rounded_weight(v, axes[n]) if n in axes else v for n, v in weights.weights.items()}
    grids = {name: ActivationGrid.over(*ranges[name]) for name in graph.quantised_tensors}
    execution, total = Execution(graph), 0.0
    for sample in on:
        expected = execution.run(sample, lambda name, value: None)
        got = execution.run(
            sample, lambda name, value: grids[name].rounded(value) if name in grids else None, stored
        )
        total += sum(float(np.square(expected[name] - got[name]).sum()) for name in expected)
    return total


def wide_head(seed: int) -> tuple[FloatGraph, list[dict[str, Array]], list[dict[str, Array]]]:
    """A layer with more inputs than the closed form has equations for, on inputs that go together; one large
    weight sets each channel's scale."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((16, 96)).astype(np.float32)
    weight[:, 0] *= 15
    bias = rng.standard_normal(16).astype(np.float32)
    graph = float_graph(
        [node("Gemm", "x w b", "y", transB=1)], {"x": (1, 96)}, ["y"], {"w": weight, "b": bias}
    )
    mix = rng.standard_normal((6, 96))

    def draw(count: int) -> list[dict[str, Array]]:
        hidden = rng.standard_normal((count, 1, 6)) @ mix
        return [{"x": np.maximum(one + 0.5, 0).astype(np.float32)} for one in hidden]

    return graph, draw(64), draw(64)


def bottleneck() -> FloatGraph:
    """A residual block of three convolutions, and a convolution after it."""
    nodes = [
        node("Conv", "x w1 b1", "c1"), node("Clip", "c1 zero six", "a1"),
        node("Conv", "a1 w2 b2", "c2", pads=[1, 1, 1, 1], group=8), node("Clip", "c2 zero six", "a2"),
        node("Conv", "a2 w3 b3", "c3"), node("Add", "x c3", "s"),
        node("Conv", "s w4 b4", "c4"), node("Relu", "c4", "y"),
    ]  # fmt: skip
    weights = {
        "w1": normal(8, 4, 1, 1), "b1": normal(8), "w2": normal(8, 1, 3, 3), "b2": normal(8),
        "w3": normal(4, 8, 1, 1), "b3": normal(4), "w4": normal(6, 4, 1, 1), "b4": normal(6),
        "zero": np.float32(0), "six": np.float32(6),
    }  # fmt: skip
    return float_graph(nodes, {"x": (1, 4, 8, 8)}, ["y"], weights)  # type: ignore[arg-type]


def test_residual_block_is_one_and_a_layer_after_it_another() -> None:
    graph = bottleneck()
    found = blocks(Execution(graph), graph.quantised_tensors)
    assert [(b.input, b.output, [layer.name for layer in b.layers]) for b in found] == [
        ("x", "s", ["c1", "c2", "c3"]),
        ("s", "y", ["c4"]),
    ]


def test_block_with_an_operator_that_is_not_known_is_left_out() -> None:
    nodes = [node("Conv", "x w b", "c"), node("Sin", "c", "e"), node("Conv", "e w2 b2", "y")]
    weights = {"w": normal(4, 4, 1, 1), "b": normal(4), "w2": normal(4, 4, 1, 1), "b2": normal(4)}
    graph = float_graph(nodes, {"x": (1, 4, 4, 4)}, ["y"], weights)
    assert [
        [layer.name for layer in b.layers] for b in blocks(Execution(graph), graph.quantised_tensors)
    ] == [
        ["c"],
        ["y"],
    ]
    # With what lies before the Sin unstored, there is no place to cut before it.
    stored = graph.quantised_tensors - {"c"}
    assert [[layer.name for layer in b.layers] for b in blocks(Execution(graph), stored)] == [["y"]]


def test_layer_with_too_few_equations_for_the_closed_form_comes_nearer_to_float_on_new_samples() -> None:
    before = after = 0.0
    for seed in range(3):
        graph, samples, others = wide_head(seed)
        execution, ranges = Execution(graph), bounds_of(graph, [*samples, *others])
        closed = sweep(execution, ranges, samples, reconstructed).graph
        learnt = adaptively_rounded(execution, closed, ranges, samples, ["y"], 60.0)
        before += noise(graph, closed, ranges, others)
        after += noise(graph, learnt, ranges, others)
    assert after < 0.9 * before


@pytest.mark.parametrize("make", [bottleneck, conv_chain])
def test_what_is_learnt_stays_on_the_grid_and_what_was_not_wanted_as_it_was(make: object) -> None:
    graph: FloatGraph = make()  # type: ignore[operator]
    samples = samples_of(graph, 16)
    execution, ranges = Execution(graph), bounds_of(graph, samples)
    closed = sweep(execution, ranges, samples, reconstructed).graph
    first = graph.layers[0]
    learnt = adaptively_rounded(execution, closed, ranges, samples, [first.name], 60.0, iterations=30)
    rows = learnt.weights[first.weight].reshape(len(learnt.weights[first.weight]), -1)
    steps = rows / (np.abs(rows).max(1, keepdims=True) / 127)
    np.testing.assert_allclose(steps, np.rint(steps), atol=2e-3)
    last = graph.layers[-1]
    np.testing.assert_array_equal(learnt.weights[last.weight], closed.weights[last.weight])


def test_nothing_is_learnt_from_one_sample_or_without_time() -> None:
    graph = conv_chain()
    samples = samples_of(graph, 4)
    execution, ranges = Execution(graph), bounds_of(graph, samples)
    names = [layer.name for layer in graph.layers]
    for held, seconds in ((samples[:1], 60.0), (samples, 0.0)):
        learnt = adaptively_rounded(execution, graph, ranges, held, names, seconds)
        assert all(np.array_equal(learnt.weights[name], value) for name, value in graph.weights.items())


def flattened() -> FloatGraph:
    """A layer between fixed shapes in which the axis of the samples is gone, as exported attention has them."""
    nodes = [
        node("Reshape", "x rows", "r"), node("Gemm", "r w b", "g", transB=1),
        node("Reshape", "g back", "s"), node("Relu", "s", "t"), node("MatMul", "t w2", "y"),
    ]  # fmt: skip
    weights = {
        "w": normal(12, 8), "b": normal(12), "w2": normal(12, 5),
        "rows": np.array([6, 8]), "back": np.array([1, 6, 12]),
    }  # fmt: skip
    return float_graph(nodes, {"x": (1, 6, 8)}, ["y"], weights)


def test_block_whose_shapes_hold_for_one_sample_alone_is_learnt_from_many() -> None:
    graph = flattened()
    samples = samples_of(graph, 32)
    execution, ranges = Execution(graph), bounds_of(graph, samples)
    names = [layer.name for layer in graph.layers]
    stored = {name for name in graph.quantised_tensors if name not in ("r", "g", "s")}
    assert next(b.input for b in blocks(execution, stored)) == "x"
    learnt = adaptively_rounded(
        execution, graph, {name: ranges[name] for name in stored}, samples, names, 60.0, iterations=60
    )
    assert noise(graph, learnt, ranges, samples) <= noise(graph, graph, ranges, samples)
