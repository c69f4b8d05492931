from __future__ import annotations

import numpy as np
import pytest
from onnx_graphs import float_graph, node, normal, run_whole, samples_of

from edgewright_converters.execution import Execution
from edgewright_converters.float_graph import FloatGraph
from edgewright_converters.observation import observe
from edgewright_converters.quantise.bias_absorption import absorb_high_biases


def chain(bias: float, pads: tuple[int, ...] = (0, 0, 0, 0), groups: int = 1) -> FloatGraph:
    nodes = [
        node("Conv", "x w1 b1", "c1"),
        node("Relu", "c1", "a1"),
        node("Conv", "a1 w2 b2", "c2", pads=list(pads), group=groups),
        node("GlobalAveragePool", "c2", "p"),
        node("Flatten", "p", "f"),
        node("Gemm", "f w3 b3", "y", transB=1),
    ]
    weights = {
        "w1": normal(4, 3, 1, 1, scale=0.1), "b1": np.full(4, bias, np.float32),
        "w2": normal(6 if groups == 1 else 4, 4 // groups, 3, 3), "b2": normal(6 if groups == 1 else 4),
        "w3": normal(5, 6 if groups == 1 else 4), "b3": normal(5),
    }  # fmt: skip
    return float_graph(nodes, {"x": (1, 3, 8, 8)}, ["y"], weights)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_shift_leaves_the_function_as_it_was_and_the_range_smaller(groups: int) -> None:
    graph = chain(5.0, groups=groups)
    samples = samples_of(graph, 8)
    before = observe(Execution(graph), samples, "here")
    absorbed = absorb_high_biases(graph, before)
    after = observe(Execution(absorbed), samples, "here")
    assert after["a1"].range[0] == pytest.approx(0.0, abs=1e-5)
    assert after["a1"].range[1] < before["a1"].range[1] / 2
    for sample in samples:
        expected, got = run_whole(graph, sample)["y"], run_whole(absorbed, sample)["y"]
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_padding_and_channels_that_reach_nought_keep_their_biases() -> None:
    for graph in (chain(5.0, pads=(1, 1, 1, 1)), chain(-0.1)):
        statistics = observe(Execution(graph), samples_of(graph, 8), "here")
        assert absorb_high_biases(graph, statistics) is graph
