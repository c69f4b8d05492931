from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from onnx_graphs import Array, bounds_of, conv_chain, float_graph, node, normal, run_whole, samples_of

from edgewright_converters.execution import Execution
from edgewright_converters.float_graph import FloatGraph
from edgewright_converters.quantise.bias_correction import corrected
from edgewright_converters.quantise.grid import ActivationGrid, rounded_weight
from edgewright_converters.quantise.reconstruction import reconstructed
from edgewright_converters.quantise.sweep import MOST_SAMPLES, Repair, rounded_only, sweep, sweep_samples

REPAIRS: dict[str, Repair] = {
    "rounding": rounded_only,
    "correction": corrected,
    "reconstruction": reconstructed,
}


def as_int8(
    graph: FloatGraph, ranges: dict[str, tuple[float, float]], sample: dict[str, Array]
) -> dict[str, Array]:
    """The graph with every stored tensor on its grid, computed without a sweep."""
    stored: dict[str, Array] = {}

    def visit(name: str, value: Array) -> Array | None:
        if name not in graph.quantised_tensors:
            return None
        stored[name] = ActivationGrid.over(*ranges[name]).rounded(value)
        return stored[name]

    Execution(graph).run(sample, visit)
    return stored


def transposed(groups: int = 1) -> FloatGraph:
    nodes = [node("ConvTranspose", "x w b", "c", strides=[2, 2], group=groups), node("Relu", "c", "y")]
    weights = {"w": normal(4, 6 // groups, 2, 2), "b": normal(6)}
    return float_graph(nodes, {"x": (1, 4, 6, 6)}, ["y"], weights)


def product_and_sum() -> FloatGraph:
    """A matrix product whose bias is in the Add after it, and large."""
    nodes = [node("MatMul", "x w", "m"), node("Add", "m b", "y")]
    return float_graph(nodes, {"x": (1, 20, 6)}, ["y"], {"w": normal(6, 4), "b": normal(4, scale=20.0)})


def many() -> FloatGraph:
    """A bit of everything: strides, dilations, groups, pads of unequal sides, one dimension less at the end."""
    nodes = [
        node("Conv", "x w1 b1", "c1", pads=[1, 0, 2, 1], strides=[2, 1]),
        node("Relu", "c1", "a1"),
        node("Conv", "a1 w2 b2", "c2", group=2, dilations=[2, 1]),
        node("Relu", "c2", "a2"),
        node("Conv", "a2 w3 b3", "c3", group=6, pads=[1, 1, 1, 1]),
        node("Add", "c3 a2", "s"),
        node("GlobalAveragePool", "s", "p"),
        node("Flatten", "p", "f"),
        node("Gemm", "f w4 b4", "y", transB=1),
    ]
    weights = {
        "w1": normal(4, 3, 3, 3), "b1": normal(4), "w2": normal(6, 2, 3, 3), "b2": normal(6),
        "w3": normal(6, 1, 3, 3), "b3": normal(6), "w4": normal(5, 6), "b4": normal(5),
    }  # fmt: skip
    return float_graph(nodes, {"x": (1, 3, 24, 20)}, ["y"], weights)


GRAPHS: dict[str, Any] = {
    "chain": conv_chain,
    "many": many,
    "product and sum": product_and_sum,
    "transposed": transposed,
    "transposed in groups": lambda: transposed(2),
}


@pytest.mark.parametrize("repair", REPAIRS.values(), ids=REPAIRS)
@pytest.mark.parametrize("build", GRAPHS.values(), ids=GRAPHS)
def test_noise_that_a_sweep_tells_is_that_of_the_graph_it_returns(build: Any, repair: Repair) -> None:
    graph = build()
    samples = samples_of(graph, 12)
    ranges = bounds_of(graph, samples)
    found = sweep(Execution(graph), ranges, samples, repair)
    assert found.samples == 12
    rounded = found.graph.with_weights(
        {
            one.weight: rounded_weight(found.graph.weights[one.weight], one.channel_axis)
            for one in graph.layers
        }
    )
    for name in graph.output_names:
        signal = noise = 0.0
        for sample in samples:
            expected = run_whole(graph, sample)[name].astype(np.float64)
            signal += float(np.square(expected).sum())
            noise += float(np.square(expected - as_int8(rounded, ranges, sample)[name]).sum())
        # Tensors held in half precision turn a few roundings over, which shows where an output has few values.
        assert found.noise_db[name] == pytest.approx(10 * np.log10(signal / noise), abs=1.0)


@pytest.mark.parametrize("repair", REPAIRS.values(), ids=REPAIRS)
@pytest.mark.parametrize("build", GRAPHS.values(), ids=GRAPHS)
def test_weight_of_a_sweep_is_found_unchanged_when_it_is_rounded_again(build: Any, repair: Repair) -> None:
    graph = build()
    samples = samples_of(graph, 12)
    swept = sweep(Execution(graph), bounds_of(graph, samples), samples, repair).graph
    for layer in graph.layers:
        weight = swept.weights[layer.weight]
        again = rounded_weight(weight, layer.channel_axis)
        np.testing.assert_allclose(again, weight, rtol=1e-5, atol=1e-6 * np.abs(weight).max())


@pytest.mark.parametrize("build", GRAPHS.values(), ids=GRAPHS)
def test_repairs_leave_no_more_noise_than_rounding(build: Any) -> None:
    graph = build()
    samples = samples_of(graph, 16)
    noise = {
        name: sweep(Execution(graph), bounds_of(graph, samples), samples, repair).noise_db
        for name, repair in REPAIRS.items()
    }
    for output in graph.output_names:
        assert noise["correction"][output] >= noise["rounding"][output] - 0.3
        assert noise["reconstruction"][output] >= noise["rounding"][output] - 0.3


def test_what_is_fixed_or_shared_is_rounded_and_handed_back_as_it_was() -> None:
    graph = replace(conv_chain(), fixed=frozenset({"w1", "b1"}))
    samples = samples_of(graph, 8)
    swept = sweep(Execution(graph), bounds_of(graph, samples), samples, corrected).graph
    for name in ("w1", "b1"):
        np.testing.assert_array_equal(swept.weights[name], graph.weights[name])
    assert not np.array_equal(swept.weights["b2"], graph.weights["b2"])


def test_weight_that_two_layers_share_is_repaired_for_neither() -> None:
    nodes = [
        node("Gemm", "x w b1", "h", transB=1),
        node("Relu", "h", "a"),
        node("Gemm", "a w b2", "y", transB=1),
    ]
    weights = {"w": normal(6, 6), "b1": normal(6), "b2": normal(6)}
    graph = float_graph(nodes, {"x": (30, 6)}, ["y"], weights)
    samples = samples_of(graph, 8)
    swept = sweep(Execution(graph), bounds_of(graph, samples), samples, reconstructed).graph
    np.testing.assert_array_equal(swept.weights["w"], rounded_weight(weights["w"], 0))
    np.testing.assert_array_equal(swept.weights["b1"], weights["b1"])


def test_layer_named_to_stay_in_float_keeps_its_weight() -> None:
    graph = conv_chain()
    samples = samples_of(graph, 8)
    ranges = bounds_of(graph, samples)
    swept = sweep(Execution(graph), ranges, samples, corrected, frozenset({graph.layers[0].name}))
    np.testing.assert_array_equal(swept.graph.weights["w1"], graph.weights["w1"])
    assert not np.array_equal(swept.graph.weights["w2"], graph.weights["w2"])
    assert swept.noise_db["y"] >= sweep(Execution(graph), ranges, samples, corrected).noise_db["y"]


def test_samples_held_shrink_with_the_largest_tensor() -> None:
    graph = conv_chain()
    assert sweep_samples(graph, 1000) == MOST_SAMPLES and sweep_samples(graph, 10) == 10
    nodes = [node("Relu", "x", "y")]
    large = float_graph(nodes, {"x": (1, 64, 512, 512)}, ["y"], {})
    assert sweep_samples(large, 1000) < 10
