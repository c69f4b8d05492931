from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx_graphs import Array, bounds_of, float_graph, node, normal, samples_of

from edgewright_converters.execution import Execution
from edgewright_converters.float_graph import FloatGraph
from edgewright_converters.quantise.bias_correction import corrected
from edgewright_converters.quantise.reconstruction import reconstructed
from edgewright_converters.quantise.sweep import LayerView, sweep


def one_layer(kind: str) -> FloatGraph:
    """A layer alone, on inputs large enough for its equations."""
    builds: dict[str, tuple[Any, tuple[int, ...], dict[str, Array]]] = {
        "Conv": (
            node("Conv", "x w b", "y", pads=[0, 1, 2, 1], strides=[2, 1], dilations=[1, 2]),
            (1, 4, 24, 24),
            {"w": normal(8, 4, 3, 3)},
        ),
        "grouped": (node("Conv", "x w b", "y", group=2), (1, 4, 24, 24), {"w": normal(8, 2, 3, 3)}),
        "depthwise": (
            node("Conv", "x w b", "y", group=8, pads=[1, 1, 1, 1]),
            (1, 8, 16, 16),
            {"w": normal(8, 1, 3, 3)},
        ),
        "1-D": (node("Conv", "x w b", "y", strides=[2]), (1, 4, 400), {"w": normal(8, 4, 5)}),
        "Gemm": (node("Gemm", "x w b", "y", transB=1), (60, 12), {"w": normal(8, 12)}),
        "Gemm not transposed": (node("Gemm", "x w b", "y"), (60, 12), {"w": normal(12, 8)}),
    }
    made, shape, weights = builds[kind]
    return float_graph([made], {"x": shape}, ["y"], {**weights, "b": normal(8)})


KINDS = ("Conv", "grouped", "depthwise", "1-D", "Gemm", "Gemm not transposed")


def correlated(graph: FloatGraph, count: int = 12) -> list[dict[str, Array]]:
    """Samples whose channels and neighbours go together, as those of real layers do: rounding errors add up."""
    samples = samples_of(graph, count)
    for sample in samples:
        x = sample["x"]
        axis = 1 if x.ndim > 2 else -1
        x += 2 * x.mean(axis, keepdims=True) + 0.7
    return samples


def views(graph: FloatGraph, samples: list[dict[str, Array]]) -> tuple[LayerView, Any, Any]:
    """The layer as a repair sees it, and what the two repairs make of it."""
    seen: list[Any] = []

    def look(view: LayerView) -> tuple[Array, Array | None]:
        seen.extend([view, corrected(view), reconstructed(view)])
        outputs = [view.run(*seen[index]) for index in (1, 2)]
        expected = list(view.outputs)
        seen.extend(
            sum(float(np.square(e - g).sum()) for e, g in zip(expected, got, strict=True)) for got in outputs
        )
        return seen[2]  # type: ignore[no-any-return]

    sweep(Execution(graph), bounds_of(graph, samples), samples, look)
    return seen[0], seen[1:3], seen[3:]


@pytest.mark.parametrize("kind", KINDS)
def test_layer_comes_nearer_to_float_than_by_rounding_to_nearest(kind: str) -> None:
    graph = one_layer(kind)
    _, (plain, fitted), (before, after) = views(graph, correlated(graph))
    assert kind == "depthwise" or not np.array_equal(plain[0], fitted[0])
    # Few taps leave little to win, and the other repair's slopes are fitted to these very samples.
    assert after < before * 1.02
    assert after < before or kind not in ("Conv", "grouped", "1-D")


@pytest.mark.parametrize("kind", KINDS)
def test_no_weight_leaves_the_grid_of_a_byte(kind: str) -> None:
    graph = one_layer(kind)
    view, (_, (weight, bias)), _ = views(graph, correlated(graph))
    rows = np.moveaxis(weight, view.layer.channel_axis, 0).reshape(8, -1)
    steps = rows / (np.abs(rows).max(1, keepdims=True) / 127)
    np.testing.assert_allclose(steps, np.rint(steps), atol=2e-3)
    assert bias is not None and np.isfinite(weight).all() and np.isfinite(bias).all()


def test_layer_with_too_few_rows_is_only_rounded_and_corrected() -> None:
    weights = {"w": normal(8, 64), "b": normal(8)}
    graph = float_graph([node("Gemm", "x w b", "y", transB=1)], {"x": (1, 64)}, ["y"], weights)
    _, (plain, fitted), _ = views(graph, samples_of(graph, 8))
    np.testing.assert_array_equal(plain[0], fitted[0])
    np.testing.assert_allclose(plain[1], fitted[1], rtol=1e-5)  # the mean, by another sum


def test_inputs_that_are_always_nought_change_nothing_and_stay_finite() -> None:
    graph = one_layer("Conv")
    samples = correlated(graph)
    for sample in samples:
        sample["x"][:, 1] = 0.0
    _, (_, (weight, _)), (before, after) = views(graph, samples)
    assert np.isfinite(weight).all() and after <= before * 1.001


def test_single_sample_is_enough_to_go_on() -> None:
    # So large that its positions alone would do.
    weights = {"w": normal(4, 4, 3, 3), "b": normal(4)}
    graph = float_graph([node("Conv", "x w b", "y")], {"x": (1, 4, 48, 48)}, ["y"], weights)
    _, (_, (weight, _)), _ = views(graph, correlated(graph, 1))
    assert np.isfinite(weight).all()
