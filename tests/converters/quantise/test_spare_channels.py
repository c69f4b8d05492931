from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx_graphs import Array, bounds_of, float_graph, node, normal, run_whole, samples_of, statistics_of

from edgewright_converters.execution import Execution
from edgewright_converters.float_graph import FloatGraph
from edgewright_converters.quantise.grid import ActivationGrid
from edgewright_converters.quantise.spare_channels import spread_over_dead

DEAD = [1, 4, 5]
LOUD = 2


def chain(*, dead: list[int] = DEAD, loud: float = 6.0, pads: int = 0, shared: bool = False) -> FloatGraph:
    """A stem, a depthwise layer that differentiates channel `LOUD`, and the layer that mixes the channels."""
    kernel = normal(8, 1, 3, 3, scale=0.3)
    kernel[LOUD] = normal(3, 3) * loud
    kernel[LOUD] -= kernel[LOUD].mean()
    first = normal(8, 3, 3, 3, scale=0.2)
    first[dead], kernel[dead] = 0.0, 0.0
    nodes = [
        node("Conv", "x w1 b1", "c", pads=[1, 1, 1, 1]),
        node("Relu", "c", "a"),
        node("Conv", "a w2 b2", "d", group=8),
        node("Clip", "d nought six", "e"),
        node("Conv", "e w3 b3", "y", pads=[pads] * 4),
    ]
    mixed = normal(4, 8, 1, 1, scale=0.2)
    mixed[:, LOUD] = 1.0
    outputs = ["y", "e"] if shared else ["y"]
    weights = {"w1": first, "b1": np.ones(8, np.float32), "w2": kernel, "b2": np.abs(normal(8)) + 0.5}
    weights |= {"nought": np.array(0, np.float32), "six": np.array(6, np.float32)}
    weights |= {"w3": mixed, "b3": normal(4)}
    return float_graph(nodes, {"x": (1, 3, 12, 12)}, outputs, weights)


def spread(graph: FloatGraph, samples: list[dict[str, Array]]) -> FloatGraph:
    return spread_over_dead(graph, statistics_of(graph, samples), bounds_of(graph, samples))


def noise(graph: FloatGraph, float_one: FloatGraph, samples: list[dict[str, Array]]) -> float:
    """Power of the output's error with the activations between the layers on their grids."""
    grids = {n: ActivationGrid.over(*b) for n, b in bounds_of(float_one, samples).items() if n in "ae"}

    def visit(name: str, value: Array) -> Array | None:
        return grids[name].rounded(value) if name in grids else None

    execution = Execution(graph)
    errors = [execution.run(s, visit)["y"] - run_whole(float_one, s)["y"] for s in samples]
    return float(np.square(errors).mean())


def test_copies_leave_the_function_and_a_fraction_of_the_noise() -> None:
    graph = chain()
    samples = samples_of(graph, 12)
    better = spread(graph, samples)
    # Three dead channels and the loud one itself: up to a quarter of its noise.
    assert noise(better, graph, samples) < 0.5 * noise(graph, graph, samples)
    for sample in samples:
        expected, got = (run_whole(one, sample)["y"] for one in (graph, better))
        assert np.abs(expected - got).max() < 0.02 * np.abs(expected).max()


def test_what_a_dead_channel_gave_is_in_the_bias_afterwards() -> None:
    graph = chain()
    samples = samples_of(graph)
    better = spread(graph, samples)
    given = np.einsum("oc,c->o", graph.weights["w3"][:, DEAD, 0, 0], graph.weights["b2"][DEAD])
    assert np.allclose(better.weights["b3"], graph.weights["b3"] + given, atol=1e-5)
    mixed = better.weights["w3"][:, [LOUD, *DEAD], 0, 0]
    assert np.allclose(mixed.sum(1), graph.weights["w3"][:, LOUD, 0, 0], atol=1e-5)


CASES: dict[str, dict[str, Any]] = {
    "no channel is dead": {"dead": []},
    "the layer after pads, and the borders would not see the bias": {"pads": 1},
    "somebody else looks at the channels": {"shared": True},
}


@pytest.mark.parametrize("case", CASES)
def test_graph_is_left_alone_where(case: str) -> None:
    graph = chain(**CASES[case])
    assert spread(graph, samples_of(graph)) is graph


def test_channels_that_are_all_alike_are_not_worth_copies() -> None:
    graph = chain(dead=[1], loud=0.3)
    samples = samples_of(graph)
    kernel = np.repeat(graph.weights["w2"][:1], 8, axis=0)
    mixed = np.ones_like(graph.weights["w3"])
    kernel[1] = 0.0
    alike = graph.with_weights({"w2": kernel, "w3": mixed})
    assert spread(alike, samples) is alike
