from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_graphs import conv_chain, run_whole, samples_of

from edgewright_converters.batch_norm import Normal
from edgewright_converters.execution import Execution
from edgewright_converters.quantise.analytic_bias import analytically_corrected, clipped
from edgewright_converters.quantise.grid import rounded_weight

DRAWS = np.random.default_rng(0).standard_normal(200_000)


@settings(deadline=None, max_examples=60)
@given(
    mean=st.floats(-5, 5),
    deviation=st.floats(0.05, 4),
    bounds=st.sampled_from([(0.0, np.inf), (0.0, 6.0), (-np.inf, np.inf), (-1.0, 1.0), (-np.inf, 2.0)]),
)
def test_clipped_normal_has_the_moments_of_clipped_draws(
    mean: float, deviation: float, bounds: tuple[float, float]
) -> None:
    found = clipped(Normal(np.array([mean]), np.array([deviation])), *bounds)
    drawn = np.clip(mean + deviation * DRAWS, *bounds)
    assert found.mean[0] == pytest.approx(drawn.mean(), abs=0.02 * deviation + 1e-6)
    assert found.deviation[0] == pytest.approx(drawn.std(), abs=0.03 * deviation + 1e-6)


def test_channel_that_never_varies_keeps_its_clipped_mean() -> None:
    found = clipped(Normal(np.array([-1.0, 3.0, 9.0]), np.zeros(3)), 0.0, 6.0)
    assert np.allclose(found.mean, [0, 3, 6]) and np.allclose(found.deviation, 0)


def test_analytic_correction_takes_out_what_the_empirical_one_measures_on_gaussian_data() -> None:
    graph = conv_chain()
    samples = samples_of(graph, 64)
    execution = Execution(graph)
    means: dict[str, list[np.ndarray]] = {}

    def visit(name: str, value: np.ndarray) -> None:
        axis = graph.channel_axes.get(name, 0)
        means.setdefault(name, []).append(np.moveaxis(value, axis, 0).reshape(value.shape[axis], -1).mean(1))

    for sample in samples:
        execution.run(sample, visit)
    expected = {name: np.mean(rows, axis=0) for name, rows in means.items()}
    coarse = graph.with_weights(
        {
            layer.weight: rounded_weight(graph.weights[layer.weight], layer.channel_axis)
            for layer in graph.layers
        }
    )
    corrected = analytically_corrected(graph, expected)
    (output,) = graph.output_names

    def shift(other: object) -> float:
        gaps = [run_whole(other, s)[output] - run_whole(graph, s)[output] for s in samples]  # type: ignore[arg-type]
        mean = np.mean(gaps, axis=0)
        return float(np.abs(mean.mean(axis=tuple(i for i in range(mean.ndim) if i != 1))).max())

    assert shift(corrected) < 0.35 * shift(coarse)
    # The same weights as without correction: only biases have moved.
    for layer in graph.layers:
        assert np.array_equal(corrected.weights[layer.weight], coarse.weights[layer.weight])
        assert layer.bias is not None
        assert not np.array_equal(corrected.weights[layer.bias], graph.weights[layer.bias])
