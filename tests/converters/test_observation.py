from __future__ import annotations

import numpy as np
import pytest
from onnx_graphs import conv_chain, float_graph, node, normal, samples_of, statistics_of

from edgewright.errors import DataError
from edgewright_converters.execution import Execution
from edgewright_converters.observation import BINS, histograms, observe


def test_statistics_are_those_of_each_channel_over_all_samples() -> None:
    graph = conv_chain()
    samples = samples_of(graph, 5)
    found = statistics_of(graph, samples)
    whole = np.concatenate([sample["x"] for sample in samples])
    np.testing.assert_allclose(found["x"].low, whole.min((0, 2, 3)))
    np.testing.assert_allclose(found["x"].high, whole.max((0, 2, 3)))
    np.testing.assert_allclose(found["x"].mean_square, np.square(whole).mean((0, 2, 3)), rtol=1e-5)
    assert found["x"].range == (whole.min(), whole.max())
    assert {name: len(one.low) for name, one in found.items()} == {"x": 3, "c": 6, "a": 6, "y": 4}
    assert found["a"].low.min() >= 0


def test_matrix_products_have_their_channels_last() -> None:
    nodes = [node("MatMul", "x w", "h"), node("Softmax", "h", "y", axis=-1)]
    graph = float_graph(nodes, {"x": (1, 5, 3)}, ["y"], {"w": normal(3, 7)})
    found = statistics_of(graph, samples_of(graph, 2))
    assert (len(found["x"].low), len(found["h"].low)) == (3, 7)


def test_one_sample_at_a_time_gives_the_same_from_a_generator() -> None:
    graph = conv_chain()
    samples = samples_of(graph, 5)
    one, other = statistics_of(graph, samples), observe(Execution(graph), iter(samples), "data")
    for name, found in one.items():
        np.testing.assert_array_equal(found.mean_square, other[name].mean_square)


def test_histogram_counts_every_value_within_the_tensors_own_range() -> None:
    graph = conv_chain()
    samples = samples_of(graph, 4)
    found = statistics_of(graph, samples)
    counts = histograms(Execution(graph), samples, found)
    assert counts["x"].sum() == sum(sample["x"].size for sample in samples)
    whole = np.concatenate([sample["x"].ravel() for sample in samples])
    expected = np.histogram(whole, BINS, found["x"].range)[0]
    # float32 puts a value at an edge into either bin.
    assert np.abs(np.cumsum(counts["x"]) - np.cumsum(expected)).max() <= 2
    # Before a fused ReLU nothing is stored, and an output is never clipped.
    assert set(counts) == {"x", "a"}


def test_data_that_drives_a_tensor_to_infinity_is_named() -> None:
    nodes = [node("Exp", "x", "e"), node("Neg", "e", "y")]
    graph = float_graph(nodes, {"x": (1, 4)}, ["y"], {})
    with pytest.raises(DataError, match=r"photos: .*'e' to infinity") as caught:
        observe(Execution(graph), [{"x": np.full((1, 4), 100, np.float32)}], "photos")
    assert "\n" not in str(caught.value)
