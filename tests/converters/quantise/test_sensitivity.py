from __future__ import annotations

import numpy as np
import pytest
from onnx_graphs import bounds_of, float_graph, node, normal, samples_of

from edgewright_converters.execution import Execution
from edgewright_converters.float_graph import FloatGraph
from edgewright_converters.quantise.grid import rounded_weight, weight_scales
from edgewright_converters.quantise.sensitivity import damage, most_for_least, relief


def three_layers(bad: int | None = None) -> FloatGraph:
    """Three convolutions of equal size; one may have an output channel that its weight's scale does not suit."""
    nodes = [
        node("Conv", "x w0 b0", "c0", pads=[1, 1, 1, 1]),
        node("Relu", "c0", "a0"),
        node("Conv", "a0 w1 b1", "c1", pads=[1, 1, 1, 1]),
        node("Relu", "c1", "a1"),
        node("Conv", "a1 w2 b2", "y", pads=[1, 1, 1, 1]),
    ]
    weights = {}
    for index in range(3):
        weight = normal(6, 6, 3, 3, scale=0.2)
        if index == bad:
            # One tap far larger than the rest, on an input that is small, ruins the rounding of the others.
            weight[:, 0, 0, 0] = 30.0
        weights |= {f"w{index}": weight, f"b{index}": normal(6, scale=0.1)}
    return float_graph(nodes, {"x": (1, 6, 8, 8)}, ["y"], weights)


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_layer_that_was_made_bad_is_found(bad: int) -> None:
    graph = three_layers(bad)
    samples = samples_of(graph, 4)
    for sample in samples:
        sample["x"][:, 0] *= 0.001
    if bad:
        # The channel that the large tap sees carries next to nothing.
        name = f"w{bad - 1}"
        weight, bias = graph.weights[name].copy(), graph.weights[f"b{bad - 1}"].copy()
        weight[0] *= 0.001
        bias[0] = 0.0
        graph = graph.with_weights({name: weight, f"b{bad - 1}": bias})
    found = damage(Execution(graph), bounds_of(graph, samples), samples)
    assert max(found, key=found.__getitem__) == graph.layers[bad].name
    assert most_for_least(found, dict.fromkeys(found, 1e-3))[0] == graph.layers[bad].name


def test_damage_is_the_noise_of_each_layer_alone() -> None:
    graph = three_layers()
    samples = samples_of(graph, 4)
    found = damage(Execution(graph), bounds_of(graph, samples), samples)
    assert set(found) == {layer.name for layer in graph.layers}
    assert all(1e-8 < value < 1e-2 for value in found.values())


def test_narrow_range_counts_as_damage_of_the_layer_that_makes_the_tensor() -> None:
    graph = three_layers()
    samples = samples_of(graph, 4)
    ranges = bounds_of(graph, samples)
    low, high = ranges["a1"]
    narrowed = damage(Execution(graph), {**ranges, "a1": (low, high / 4)}, samples)
    assert max(narrowed, key=narrowed.__getitem__) == graph.layers[1].name


def test_of_two_layers_that_damage_alike_the_cheaper_leaves_int8_first() -> None:
    seconds = {"conv": 2e-3, "head": 1e-5}
    assert most_for_least({"conv": 1e-3, "head": 1e-3}, seconds) == ["head", "conv"]
    assert most_for_least({"conv": 1.0, "head": 1e-9}, seconds) == ["conv", "head"]


def test_layer_that_int8_makes_slower_leaves_it_before_all_others() -> None:
    seconds = {"conv": 1e-3, "small": -1e-6, "tiny": 0.0}
    damages = {"conv": 1.0, "small": 1e-6, "tiny": 1e-5, "unknown": 1.0, "harmless": 0.0}
    assert most_for_least(damages, seconds) == ["tiny", "small", "conv", "unknown"]


def test_model_whose_output_is_nought_damages_nothing() -> None:
    graph = three_layers()
    graph = graph.with_weights({"w2": np.zeros((6, 6, 3, 3), np.float32), "b2": np.zeros(6, np.float32)})
    samples = samples_of(graph, 2)
    found = damage(Execution(graph), bounds_of(graph, samples), samples)
    assert all(value == 0.0 for value in found.values())


def test_relief_is_what_leaving_one_layer_of_a_rounded_graph_in_float_takes_out() -> None:
    graph = three_layers()
    samples = samples_of(graph, 4)
    ranges = bounds_of(graph, samples)
    ranges["a1"] = (0.0, ranges["a1"][1] / 4)
    execution = Execution(graph)
    found = relief(execution, graph.weights, ranges, samples)
    assert max(found, key=found.__getitem__) == graph.layers[1].name and found[graph.layers[1].name] > 0
    assert found[graph.layers[1].name] == pytest.approx(
        damage(execution, ranges, samples)[graph.layers[1].name], rel=0.3
    )


def test_layer_whose_weights_rely_on_being_rounded_gives_no_relief() -> None:
    graph = three_layers()
    layer = graph.layers[1]
    samples = samples_of(graph, 4)
    weight = rounded_weight(graph.weights[layer.weight], layer.channel_axis)
    graph = graph.with_weights({layer.weight: weight})
    step = weight_scales(weight, layer.channel_axis)
    # As training may leave them: a third of a step off, on the same grid once they are rounded.
    off = np.where(np.abs(weight) < np.abs(weight).max(axis=(1, 2, 3), keepdims=True), step / 3, 0.0)
    trained = {**graph.weights, layer.weight: (weight + off).astype(np.float32)}
    execution, ranges = Execution(graph), bounds_of(graph, samples)
    assert relief(execution, trained, ranges, samples)[layer.name] < 0
    assert damage(Execution(graph.with_weights(trained)), ranges, samples)[layer.name] > 0
