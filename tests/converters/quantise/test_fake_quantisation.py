from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import numpy_helper
from onnx_graphs import Array, exported_graph, node

from edgewright_converters.quantise.fake_quantisation import on_grid, weight_on_grid
from edgewright_converters.quantise.grid import STEPS, ActivationGrid, rounded_weight
from edgewright_converters.quantise.onnx_static import quantise_onnx

reals = st.floats(-1e3, 1e3, width=32)
scales = st.floats(2.0**-20, 2.0**10, width=32)
weights = arrays.arrays(
    np.float32,
    arrays.array_shapes(min_dims=2, max_dims=4, max_side=4),
    elements=st.floats(-1e3, 1e3, width=32),
)


@given(arrays.arrays(np.float32, (17,), elements=reals), scales, st.integers(0, STEPS))
def test_activations_take_exactly_the_values_of_their_grid(
    values: Array, scale: float, zero_point: int
) -> None:
    expected = ActivationGrid(scale, zero_point).rounded(values)
    made = on_grid(torch.from_numpy(values), torch.tensor(scale), zero_point).numpy()
    np.testing.assert_array_equal(made, expected)


@given(weights, st.integers(0, 3))
def test_weights_take_exactly_the_values_that_the_converters_round_to(weight: Array, axis: int) -> None:
    axis %= weight.ndim
    made = weight_on_grid(torch.from_numpy(weight), axis).numpy()
    np.testing.assert_array_equal(made, rounded_weight(weight, axis))


@given(
    arrays.arrays(np.float32, (17,), elements=reals), scales, st.integers(0, STEPS),
    arrays.arrays(np.float32, (17,), elements=st.floats(-2, 2, width=32)),
)  # fmt: skip
def test_gradient_goes_straight_through_rounding_and_ends_where_values_are_clipped(
    values: Array, scale: float, zero_point: int, upstream: Array
) -> None:
    x = torch.from_numpy(values).requires_grad_()
    step = torch.tensor(scale, requires_grad=True)
    on_grid(x, step, zero_point).backward(torch.from_numpy(upstream))
    steps = values * np.float32(1 / scale)
    low, high = -zero_point, STEPS - zero_point
    inside = (steps >= low) & (steps <= high)
    assert x.grad is not None and step.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), np.where(inside, upstream, 0), rtol=1e-5)
    # Esser et al. 2020, equation 3: what rounding adds inside, and the end of the grid outside.
    of_step = np.where(inside, np.rint(steps) - steps, np.clip(steps, low, high))
    largest = 1 + float(np.abs(upstream * np.clip(steps, low, high)).sum())
    assert float(step.grad) == pytest.approx(float((upstream * of_step).sum()), abs=1e-5 * largest)


def test_gradient_of_a_weight_is_that_of_the_weight_rounded() -> None:
    weight = torch.randn(4, 3, requires_grad=True)
    upstream = torch.randn(4, 3)
    weight_on_grid(weight, 0).backward(upstream)
    assert weight.grad is not None and torch.equal(weight.grad, upstream)


@given(arrays.arrays(np.float32, (5, 7), elements=st.floats(-50, 50, width=32)))
def test_weights_are_the_integers_of_the_onnx_file_times_their_scales(weight: Array) -> None:
    graph = exported_graph(
        [node("Gemm", "x w b", "y", transB=1)], {"x": (1, 7)}, ["y"],
        {"w": weight, "b": np.zeros(5, np.float32)},
    )  # fmt: skip
    made = onnx.load_from_string(
        quantise_onnx(graph, {"x": (-1.0, 1.0), "y": (-9.0, 9.0)}, "uint8").data
    ).graph
    held = {i.name: numpy_helper.to_array(i) for i in made.initializer}
    integers = next(value for value in held.values() if value.dtype == np.int8 and value.shape == (5, 7))
    scale = next(value for name, value in held.items() if name.startswith("w") and name.endswith("_scale"))
    simulated = weight_on_grid(torch.from_numpy(weight), 0).numpy()
    alive = np.abs(weight).max(axis=1) > 1e-30
    np.testing.assert_array_equal(simulated[alive], (integers * scale[:, None])[alive])
