from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_graphs import (
    Array,
    bounds_of,
    conv_chain,
    float_graph,
    node,
    normal,
    run_whole,
    samples_of,
    statistics_of,
)

from edgewright_converters.execution import Execution
from edgewright_converters.float_graph import FloatGraph
from edgewright_converters.quantise.equalise import FACTOR_LIMIT, equalise
from edgewright_converters.quantise.sweep import sweep

SPREAD = np.geomspace(0.003, 1.0, 6).astype(np.float32)


def unequal(*shape: int) -> Array:
    """A weight whose output channels, along its first axis, lie three orders of magnitude apart."""
    return normal(*shape, scale=0.3) * SPREAD.reshape(-1, *[1] * (len(shape) - 1))


def depthwise() -> FloatGraph:
    nodes = [
        node("Conv", "x w1 b1", "c", pads=[1, 1, 1, 1]),
        node("Relu", "c", "a"),
        node("Conv", "a w2 b2", "d", group=6),
        node("Relu", "d", "e"),
        node("Conv", "e w3 b3", "y"),
    ]
    weights = {
        "w1": unequal(6, 3, 3, 3),
        "b1": SPREAD * 0.1,
        "w2": unequal(6, 1, 3, 3),
        "b2": normal(6) * 0.01,
    }
    return float_graph(
        nodes, {"x": (1, 3, 8, 8)}, ["y"], weights | {"w3": normal(4, 6, 1, 1), "b3": normal(4)}
    )


def residual() -> FloatGraph:
    nodes = [
        node("Conv", "x w1 b1", "c"),
        node("Relu", "c", "a"),
        node("Conv", "a w2 b2", "d", pads=[1, 1, 1, 1]),
        node("Add", "d a", "s"),
        node("Relu", "s", "t"),
        node("Conv", "t w3 b3", "y"),
    ]
    weights = {"w1": unequal(6, 3, 3, 3), "b1": SPREAD * 0.1, "w2": unequal(6, 6, 3, 3), "b2": SPREAD * 0.1}
    return float_graph(
        nodes, {"x": (1, 3, 8, 8)}, ["y"], weights | {"w3": normal(4, 6, 1, 1), "b3": normal(4)}
    )


def pooled() -> FloatGraph:
    nodes = [
        node("Conv", "x w1 b1", "c"),
        node("Relu", "c", "a"),
        node("GlobalAveragePool", "a", "p"),
        node("Flatten", "p", "f"),
        node("Gemm", "f w2 b2", "y", transB=1),
    ]
    weights = {"w1": unequal(6, 3, 3, 3), "b1": SPREAD * 0.1, "w2": normal(5, 6), "b2": normal(5)}
    return float_graph(nodes, {"x": (1, 3, 8, 8)}, ["y"], weights)


def normalised() -> FloatGraph:
    nodes = [
        node("LayerNormalization", "x gamma beta", "n", axis=-1),
        node("MatMul", "n w", "m"),
        node("Add", "m b", "y"),
    ]
    weights = {"gamma": SPREAD * 3, "beta": SPREAD * 0.1, "w": normal(6, 6), "b": normal(6)}
    return float_graph(nodes, {"x": (1, 5, 6)}, ["y"], weights)


def dense() -> FloatGraph:
    nodes = [
        node("Gemm", "x w1 b1", "h", transB=1),
        node("Relu", "h", "a"),
        node("Gemm", "a w2 b2", "y"),
    ]
    weights = {"w1": unequal(6, 8), "b1": SPREAD * 0.1, "w2": normal(6, 4), "b2": normal(4)}
    return float_graph(nodes, {"x": (1, 8)}, ["y"], weights)


TOUCHED = {
    "chain": conv_chain,
    "ReLU6": lambda: conv_chain(activation="Clip"),
    "depthwise": depthwise,
    "residual": residual,
    "global pool and Gemm": pooled,
    "LayerNorm and MatMul": normalised,
    "Gemm": dense,
}


@pytest.mark.parametrize("build", TOUCHED.values(), ids=TOUCHED)
def test_float_function_stays_and_rounding_costs_less(build: Any) -> None:
    graph = build()
    samples = samples_of(graph, 6)
    equalised = equalise(graph, statistics_of(graph, samples))
    assert any(not np.array_equal(equalised.weights[n], graph.weights[n]) for n in graph.weights)
    for sample in samples:
        expected, got = run_whole(graph, sample)["y"], run_whole(equalised, sample)["y"]
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    before, after = (
        sweep(Execution(one), bounds_of(one, samples), samples).noise_db["y"] for one in (graph, equalised)
    )
    assert after > before - 1.0


@given(st.floats(0.01, 100), st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_bounded_activation_cuts_nothing_that_passed_whatever_the_scale(scale: float, seed: int) -> None:
    graph = conv_chain(activation="Clip")
    random = np.random.default_rng(seed)
    samples = [{"x": (scale * random.standard_normal((1, 3, 8, 8))).astype(np.float32)} for _ in range(3)]
    equalised = equalise(graph, statistics_of(graph, samples))
    for sample in samples:
        expected, got = run_whole(graph, sample)["y"], run_whole(equalised, sample)["y"]
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4 * max(np.abs(expected).max(), 1.0))


def test_factor_is_bounded_for_a_channel_that_is_nearly_dead() -> None:
    graph = conv_chain()
    dying = graph.with_weights({"w1": graph.weights["w1"] * SPREAD[:, None, None, None] ** 2})
    equalised = equalise(dying, statistics_of(dying, samples_of(dying, 4)))
    ratio = equalised.weights["w1"] / dying.weights["w1"]
    assert 1.0 < ratio.max() <= FACTOR_LIMIT * 1.001 and ratio.min() >= 0.999


def multiplied() -> FloatGraph:
    nodes = [
        node("Conv", "x w1 b1", "c"),
        node("Conv", "x w2 b2", "d"),
        node("Mul", "c d", "m"),
        node("Conv", "m w3 b3", "y"),
    ]
    weights = {"w1": unequal(6, 3, 3, 3), "b1": SPREAD, "w2": unequal(6, 3, 3, 3), "b2": SPREAD}
    return float_graph(
        nodes, {"x": (1, 3, 8, 8)}, ["y"], weights | {"w3": normal(4, 6, 1, 1), "b3": normal(4)}
    )


def concatenated() -> FloatGraph:
    nodes = [
        node("Conv", "x w1 b1", "c"),
        node("Conv", "x w2 b2", "d"),
        node("Concat", "c d", "m", axis=1),
        node("Conv", "m w3 b3", "y"),
    ]
    weights = {"w1": unequal(6, 3, 3, 3), "b1": SPREAD, "w2": unequal(6, 3, 3, 3), "b2": SPREAD}
    return float_graph(
        nodes, {"x": (1, 3, 8, 8)}, ["y"], weights | {"w3": normal(4, 12, 1, 1), "b3": normal(4)}
    )


def shared() -> FloatGraph:
    nodes = [
        node("Conv", "x w1 b1", "c", pads=[1, 1, 1, 1]),
        node("Relu", "c", "a"),
        node("Conv", "a w1 b1", "d", pads=[1, 1, 1, 1]),
        node("Relu", "d", "e"),
        node("Conv", "e w2 b2", "y"),
    ]
    weights = {"w1": unequal(6, 6, 3, 3), "b1": SPREAD, "w2": normal(4, 6, 1, 1), "b2": normal(4)}
    return float_graph(nodes, {"x": (1, 6, 8, 8)}, ["y"], weights)


def live_bias() -> FloatGraph:
    """A Gemm whose third input is computed: it cannot be scaled with the weight."""
    nodes = [
        node("Gemm", "x w0 b0", "bias", transB=1),
        node("Gemm", "x w1 bias", "h", transB=1),
        node("Relu", "h", "a"),
        node("Gemm", "a w2 b2", "y", transB=1),
    ]
    weights = {"w0": unequal(6, 8), "b0": normal(6), "w1": unequal(6, 8), "w2": normal(4, 6), "b2": normal(4)}
    return float_graph(nodes, {"x": (1, 8)}, ["y"], weights)


UNTOUCHED = {
    "Mul": multiplied,
    "hard-swish": lambda: conv_chain(activation="HardSwish"),
    "concat": concatenated,
    "shared weight": shared,
    "sigmoid": lambda: conv_chain(activation="Sigmoid"),
}


@pytest.mark.parametrize("build", UNTOUCHED.values(), ids=UNTOUCHED)
def test_graph_that_scaling_would_change_is_left_alone(build: Any) -> None:
    graph = build()
    equalised = equalise(graph, statistics_of(graph, samples_of(graph, 4)))
    assert all(np.array_equal(equalised.weights[name], graph.weights[name]) for name in graph.weights)


def test_bias_that_is_computed_keeps_the_function() -> None:
    graph = live_bias()
    samples = samples_of(graph, 4)
    equalised = equalise(graph, statistics_of(graph, samples))
    for sample in samples:
        expected = run_whole(graph, sample)["y"]
        np.testing.assert_allclose(run_whole(equalised, sample)["y"], expected, rtol=1e-4, atol=1e-5)


def test_fixed_weights_and_graph_outputs_are_left_alone() -> None:
    graph = conv_chain()
    statistics = statistics_of(graph, samples_of(graph, 4))
    held = equalise(replace(graph, fixed=frozenset({"w1"})), statistics)
    assert all(np.array_equal(held.weights[name], graph.weights[name]) for name in graph.weights)
    nodes = [
        node("Conv", "x w1 b1", "c", pads=[1, 1, 1, 1]),
        node("Relu", "c", "a"),
        node("Conv", "a w2 b2", "y"),
    ]
    shown = float_graph(nodes, {"x": (1, 3, 8, 8)}, ["a", "y"], dict(graph.weights))
    same = equalise(shown, statistics)
    assert all(np.array_equal(same.weights[name], graph.weights[name]) for name in graph.weights)
