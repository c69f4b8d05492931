from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_graphs import Array, bounds_of, conv_chain, float_graph, node, normal, samples_of

from edgewright_converters.execution import Execution
from edgewright_converters.float_graph import FloatGraph
from edgewright_converters.quantise.bias_correction import SLOPE_LIMIT, channel_lines, corrected
from edgewright_converters.quantise.sweep import LayerView, rounded_only, sweep


def coarse(build: Any) -> tuple[FloatGraph, list[dict[str, Array]], dict[str, tuple[float, float]]]:
    """A graph whose input is clipped, which shifts and shrinks what its first layer makes."""
    graph = build()
    samples = [{name: value + 1 for name, value in sample.items()} for sample in samples_of(graph, 16)]
    return graph, samples, {**bounds_of(graph, samples), "x": (-0.5, 2.0)}


def product_and_sum() -> FloatGraph:
    nodes = [node("MatMul", "x w", "m"), node("Add", "m b", "y")]
    return float_graph(nodes, {"x": (1, 20, 6)}, ["y"], {"w": normal(6, 4), "b": normal(4, scale=20.0)})


def gemm() -> FloatGraph:
    weights = {"w": normal(4, 6), "b": normal(4, scale=5.0)}
    return float_graph([node("Gemm", "x w b", "y", transB=1)], {"x": (20, 6)}, ["y"], weights)


@pytest.mark.parametrize("build", [conv_chain, product_and_sum, gemm])
def test_no_channel_is_shifted_on_average(build: Any) -> None:
    graph, samples, ranges = coarse(build)
    errors: dict[str, Array] = {}
    for name, repair in (("rounded", rounded_only), ("corrected", corrected)):
        swept = sweep(Execution(graph), ranges, samples, repair).graph
        errors[name] = mean_errors(graph, swept, ranges, samples)
    assert np.abs(errors["corrected"]).max() < 0.05 * np.abs(errors["rounded"]).max()


def mean_errors(
    graph: FloatGraph,
    swept: FloatGraph,
    ranges: dict[str, tuple[float, float]],
    samples: list[dict[str, Array]],
) -> Array:
    """Of each channel of the output, before it is rounded itself."""
    from edgewright_converters.quantise.grid import ActivationGrid

    def stored(name: str, value: Array) -> Array | None:
        inner = name in graph.quantised_tensors and name not in graph.output_names
        return ActivationGrid.over(*ranges[name]).rounded(value) if inner else None

    total: Any = 0.0
    for sample in samples:
        expected = Execution(graph).run(sample, lambda name, value: None)["y"]
        got = Execution(swept).run(sample, stored)["y"]
        error = np.moveaxis(got - expected, graph.channel_axes["y"], 0)
        total = total + error.reshape(len(error), -1).mean(1) / len(samples)
    result: Array = total
    return result


@given(st.floats(1 - SLOPE_LIMIT, 1 + SLOPE_LIMIT), st.floats(-5, 5), st.integers(0, 1000))
@settings(deadline=None)
def test_line_through_exact_points_is_found(slope: float, offset: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    got = [random.standard_normal((1, 3, 4, 5)) for _ in range(4)]
    slopes, offsets = channel_lines([slope * one + offset for one in got], got, 1)
    np.testing.assert_allclose(slopes, slope, rtol=1e-6)
    np.testing.assert_allclose(offsets, offset, atol=1e-6)


@given(st.integers(0, 1000))
@settings(deadline=None)
def test_line_leaves_no_mean_error_even_where_its_slope_is_held_back(seed: int) -> None:
    random = np.random.default_rng(seed)
    got = [random.standard_normal((1, 3, 4, 5)) + 2 for _ in range(4)]
    expected = [3 * one + random.standard_normal(one.shape) for one in got]
    slopes, offsets = channel_lines(expected, got, 1)
    np.testing.assert_allclose(slopes, 1 + SLOPE_LIMIT)
    left = np.mean(
        [e - slopes[:, None, None] * g - offsets[:, None, None] for e, g in zip(expected, got, strict=True)],
        (0, 1, 3, 4),
    )
    np.testing.assert_allclose(left, 0, atol=1e-9)


def test_few_values_and_dead_channels_get_no_slope() -> None:
    few = [normal(1, 3) for _ in range(4)]
    assert np.all(channel_lines([2 * one for one in few], few, 1)[0] == 1.0)
    dead = [np.zeros((1, 2, 8, 8), np.float32)] * 2
    slopes, offsets = channel_lines([one + 0.25 for one in dead], dead, 1)
    assert np.all(slopes == 1.0) and np.allclose(offsets, 0.25)


def test_layer_without_a_bias_is_rounded_and_not_moved() -> None:
    graph = float_graph([node("MatMul", "x w", "y")], {"x": (1, 20, 6)}, ["y"], {"w": normal(6, 4)})
    seen: list[tuple[Array, Array | None]] = []

    def keep(view: LayerView) -> tuple[Array, Array | None]:
        seen.append(corrected(view))
        return seen[-1]

    samples = samples_of(graph, 4)
    plain = sweep(Execution(graph), bounds_of(graph, samples), samples, rounded_only).graph.weights["w"]
    swept = sweep(Execution(graph), bounds_of(graph, samples), samples, keep).graph.weights["w"]
    np.testing.assert_array_equal(swept, plain)
    assert seen[0][1] is None
