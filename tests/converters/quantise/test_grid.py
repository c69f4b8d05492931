from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgewright_converters.quantise.grid import (
    BIAS_STEPS,
    ActivationGrid,
    holding_bias,
    rounded_weight,
    weight_scales,
)

FLOATS = st.floats(-1e4, 1e4, width=32)
WEIGHTS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=4, max_side=5), elements=FLOATS)


@given(FLOATS, FLOATS, hnp.arrays(np.float32, 32, elements=FLOATS))
@settings(deadline=None)
def test_rounding_onto_an_activation_grid_twice_changes_nothing(
    low: float, high: float, values: np.ndarray
) -> None:
    grid = ActivationGrid.over(min(low, high), max(low, high))
    once = grid.rounded(values)
    np.testing.assert_array_equal(grid.rounded(once), once)


@given(FLOATS, FLOATS, hnp.arrays(np.float32, 32, elements=st.floats(0, 1, width=32)))
@settings(deadline=None)
def test_value_within_the_range_moves_by_half_a_step_at_most(
    low: float, high: float, shares: np.ndarray
) -> None:
    low, high = min(low, high, 0.0), max(low, high, 0.0)
    grid = ActivationGrid.over(low, high)
    values = (low + (high - low) * shares.astype(np.float64)).astype(np.float32)
    # The zero point itself is rounded, which may cut half a step off either end.
    moved = np.abs(grid.rounded(values) - values)
    inside = (values >= -grid.zero_point * grid.scale) & (values <= (255 - grid.zero_point) * grid.scale)
    tolerance = 1e-4 * grid.scale + 1e-30
    assert np.all(moved[inside] <= grid.scale / 2 + tolerance)
    assert np.all(moved <= grid.scale + tolerance)


@given(FLOATS, FLOATS)
@settings(deadline=None)
def test_activation_grid_holds_nought_exactly_and_has_a_byte_for_zero_point(low: float, high: float) -> None:
    grid = ActivationGrid.over(min(low, high), max(low, high))
    assert grid.scale > 0 and 0 <= grid.zero_point <= 255
    assert grid.rounded(np.zeros(1, np.float32))[0] == 0.0


@given(WEIGHTS, st.data())
@settings(deadline=None)
def test_rounding_a_weight_twice_changes_nothing(weight: np.ndarray, data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, weight.ndim - 1))
    once = rounded_weight(weight, axis)
    np.testing.assert_array_equal(rounded_weight(once, axis), once)


@given(WEIGHTS, st.data())
@settings(deadline=None)
def test_rounded_weight_is_within_half_a_step_of_its_channel(weight: np.ndarray, data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, weight.ndim - 1))
    scales = weight_scales(weight, axis)
    assert np.all(np.abs(rounded_weight(weight, axis) - weight) <= scales * np.float32(0.5001))


def test_channel_of_noughts_stays_noughts() -> None:
    weight = np.zeros((3, 2, 1, 1), np.float32)
    weight[1] = 0.5
    assert weight_scales(weight, 0).ravel().tolist() == [1.0, np.float32(0.5 / 127), 1.0]
    np.testing.assert_allclose(rounded_weight(weight, 0), weight)


def test_channel_of_denormal_numbers_counts_as_nought() -> None:
    weight = np.full((2, 3), 1e-42, np.float32)
    weight[1] = 1.0
    np.testing.assert_array_equal(rounded_weight(weight, 0)[0], 0.0)
    assert ActivationGrid.over(0.0, 1e-42).scale == 1.0


@given(WEIGHTS, st.data(), st.floats(1e-6, 10.0))
@settings(deadline=None)
def test_every_bias_fits_into_32_bits_and_weights_that_hold_theirs_are_left_alone(
    weight: np.ndarray, data: st.DataObject, input_scale: float
) -> None:
    axis = data.draw(st.integers(0, weight.ndim - 1))
    bias = data.draw(hnp.arrays(np.float32, weight.shape[axis], elements=FLOATS))
    held = holding_bias(weight, bias, axis, input_scale)
    scales = weight_scales(held, axis).reshape(-1).astype(np.float64)
    steps = np.abs(bias) / (input_scale * scales)
    dead = np.abs(held).max(axis=tuple(i for i in range(held.ndim) if i != axis)) < 1e-30
    assert np.all((steps <= BIAS_STEPS * (1 + 1e-5)) | dead)
    own = np.abs(bias) / (input_scale * weight_scales(weight, axis).reshape(-1).astype(np.float64))
    kept = np.moveaxis(held == weight, axis, 0).reshape(len(bias), -1).all(axis=1)
    # A channel of noughts has no scale of its own.
    empty = np.abs(np.moveaxis(weight, axis, 0)).reshape(len(bias), -1).max(axis=1) < 1e-30
    assert np.all(kept | (own > BIAS_STEPS * (1 - 1e-5)) | empty)
