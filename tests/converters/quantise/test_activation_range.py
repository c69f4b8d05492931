from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_graphs import conv_chain, float_graph, node, samples_of, statistics_of

from edgewright_converters.execution import Execution
from edgewright_converters.observation import BINS, histograms
from edgewright_converters.quantise.activation_range import choose_range, choose_ranges
from edgewright_converters.quantise.grid import ActivationGrid


def histogram(values: Any) -> tuple[float, float, Any]:
    low, high = float(values.min()), float(values.max())
    return low, high, np.histogram(values, BINS, (low, high))[0]


def distribution(seed: int, kind: str, scale: float, shift: float) -> Any:
    random = np.random.default_rng(seed)
    values = {
        "normal": lambda: random.standard_normal(4000),
        "heavy": lambda: random.standard_t(2, 4000),
        "relu": lambda: np.maximum(random.standard_normal(4000), 0),
        "uniform": lambda: random.uniform(-1, 1, 4000),
        "two peaks": lambda: np.concatenate([random.normal(-3, 0.1, 2000), random.normal(5, 0.1, 2000)]),
        "outlier": lambda: np.append(random.standard_normal(3999), 200.0),
    }[kind]()
    # What a ReLU holds back lies at nought, which every grid has.
    return (values * scale + (0.0 if kind == "relu" else shift)).astype(np.float32)


DISTRIBUTIONS = st.builds(
    distribution,
    st.integers(0, 1000),
    st.sampled_from(["normal", "heavy", "relu", "uniform", "two peaks", "outlier"]),
    st.floats(1e-3, 1e3),
    st.floats(-10, 10),
)


@given(DISTRIBUTIONS)
@settings(max_examples=40, deadline=None)
def test_chosen_range_never_leaves_more_error_than_minimum_and_maximum(values: Any) -> None:
    low, high, counts = histogram(values)
    chosen = choose_range(low, high, counts)
    assert chosen.error <= chosen.min_max_error

    def measured(low: float, high: float) -> float:
        return float(
            np.square(ActivationGrid.over(low, high).rounded(values) - values.astype(np.float64)).mean()
        )

    # The estimate comes from a histogram, and a range is narrowed only for a gain of a twentieth.
    assert measured(chosen.low, chosen.high) <= measured(low, high) * 1.05 + 1e-12


@given(DISTRIBUTIONS)
@settings(max_examples=40, deadline=None)
def test_chosen_range_is_within_the_true_one_and_keeps_nought(values: Any) -> None:
    low, high, counts = histogram(values)
    chosen = choose_range(low, high, counts)
    assert min(low, 0.0) <= chosen.low <= max(chosen.high, 0.0) <= max(high, 0.0)
    grid = ActivationGrid.over(chosen.low, chosen.high)
    assert grid.rounded(np.zeros(1, np.float32))[0] == 0.0


def test_rare_outliers_are_clipped_and_a_uniform_tensor_is_not() -> None:
    values = np.append(np.random.default_rng(0).standard_normal(4_000_000), 30.0).astype(np.float32)
    found = choose_range(*histogram(values))
    assert found.method != "min-max" and found.high < 20 and found.error < 0.7 * found.min_max_error
    assert choose_range(*histogram(distribution(0, "uniform", 1.0, 0.0))).method == "min-max"


@pytest.mark.parametrize("bounds", [(0.0, 0.0), (2.0, 2.0), (-3.0, -3.0)])
def test_constant_tensor_gets_a_range_that_holds_it(bounds: tuple[float, float]) -> None:
    chosen = choose_range(*bounds, None)
    grid = ActivationGrid.over(chosen.low, chosen.high)
    assert grid.rounded(np.full(1, bounds[0], np.float32))[0] == pytest.approx(bounds[0])


def test_range_of_a_graph_output_is_never_narrowed() -> None:
    graph = conv_chain()
    samples = samples_of(graph)
    statistics = statistics_of(graph, samples)
    counted = histograms(Execution(graph), samples, statistics)
    assert "y" not in counted and {"x", "a"} <= set(counted)
    found = choose_ranges(statistics, counted)["y"]
    assert (found.low, found.high, found.method) == (*statistics["y"].range, "min-max")


def test_tensor_that_is_only_reshaped_into_an_output_is_not_narrowed_either() -> None:
    nodes = [node("Exp", "x", "e"), node("Transpose", "e", "t", perm=[0, 2, 1]), node("Flatten", "t", "y")]
    graph = float_graph(nodes, {"x": (1, 3, 4)}, ["y"], {})
    samples = samples_of(graph)
    assert set(histograms(Execution(graph), samples, statistics_of(graph, samples))) == {"x"}
