"""The policy is what stands between a camera and a disk: what it cuts away must leave no trace."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgewright.artifact.manifest import Quantisation, TensorSpec
from edgewright.privacy import Box, NotAllowedError, PrivacyPolicy, redacted, restored

Array = NDArray[Any]


def picture(height: int, width: int, *, channels_last: bool, dtype: str = "uint8") -> TensorSpec:
    shape = (1, height, width, 3) if channels_last else (1, 3, height, width)
    return TensorSpec(
        name="x",
        runtime_name="x",
        shape=shape,
        dtype=dtype,  # type: ignore[arg-type]
        quantisation=Quantisation(scale=0.5, zero_point=7) if dtype != "float32" else None,
        permutation=(0, 2, 3, 1) if channels_last else None,
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[PrivacyPolicy, TensorSpec, Array]:
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    spec = picture(
        height,
        width,
        channels_last=draw(st.booleans()),
        dtype=draw(st.sampled_from(["uint8", "int8", "float32"])),
    )
    left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    box = Box(
        left=left,
        top=top,
        width=draw(st.integers(1, width - left)),
        height=draw(st.integers(1, height - top)),
    )
    policy = PrivacyPolicy(
        store="input", crop=draw(st.none() | st.just(box)), downscale=draw(st.integers(1, 6))
    )
    seed = draw(st.integers(0, 2**32 - 1))
    values = np.random.default_rng(seed).integers(0, 100, spec.shape).astype(spec.dtype)
    return policy, spec, values


def planes(array: Array, spec: TensorSpec) -> Array:
    """As [channel, row, column], whatever the artifact's order."""
    return np.moveaxis(array, -1, 1)[0] if spec.permutation else array[0]


@given(cases(), st.integers(0, 2**32 - 1))
def test_what_is_outside_the_box_changes_no_byte_of_what_is_kept(
    case: tuple[PrivacyPolicy, TensorSpec, Array], seed: int
) -> None:
    policy, spec, values = case
    other = np.random.default_rng(seed).integers(0, 100, spec.shape).astype(spec.dtype)
    box = policy.crop
    if box is not None:
        part = (..., slice(box.top, box.top + box.height), slice(box.left, box.left + box.width))
        planes(other, spec)[part] = planes(values, spec)[part]
    else:
        other = values.copy()
    assert redacted(policy, [other], [spec])[0].tobytes() == redacted(policy, [values], [spec])[0].tobytes()


@given(cases(), st.integers(0, 2**32 - 1))
def test_of_a_square_only_its_mean_is_kept(case: tuple[PrivacyPolicy, TensorSpec, Array], seed: int) -> None:
    policy, spec, values = case
    policy = policy.model_copy(update={"crop": None})
    mixed = values.copy()
    view, side = planes(mixed, spec), policy.downscale
    generator = np.random.default_rng(seed)
    for top in range(0, view.shape[1], side):
        for left in range(0, view.shape[2], side):
            for channel in view:
                square = channel[top : top + side, left : left + side]
                square[...] = generator.permutation(square.ravel()).reshape(square.shape)
    # Whole numbers add up to the same in any order, also as floats.
    assert np.array_equal(redacted(policy, [mixed], [spec])[0], redacted(policy, [values], [spec])[0])


@given(cases())
def test_what_is_restored_has_the_models_shape_and_is_nought_outside_the_box(
    case: tuple[PrivacyPolicy, TensorSpec, Array],
) -> None:
    policy, spec, values = case
    (stored,) = redacted(policy, [values], [spec])
    back = restored(policy, stored, spec)
    assert (back.shape, back.dtype) == (spec.shape, np.dtype(spec.dtype))
    kept = np.zeros(planes(back, spec).shape, bool)
    box = policy.crop or Box(left=0, top=0, width=kept.shape[2], height=kept.shape[1])
    part = (..., slice(box.top, box.top + box.height), slice(box.left, box.left + box.width))
    kept[part] = True
    nought = spec.quantisation.zero_point if spec.quantisation else 0
    assert np.all(planes(back, spec)[~kept] == nought)
    if policy.downscale == 1:
        assert np.array_equal(planes(back, spec)[part], planes(values, spec)[part])
    again = redacted(policy, [back], [spec])[0]
    assert np.allclose(again.astype(float), stored.astype(float), rtol=1e-5, atol=0)


def test_a_copy_is_kept_not_the_array_that_the_runtime_had() -> None:
    spec, values = picture(2, 2, channels_last=False), np.ones((1, 3, 2, 2), np.uint8)
    (kept,) = redacted(PrivacyPolicy(store="input"), [values], [spec])
    values[...] = 9
    assert kept.max() == 1


@pytest.mark.parametrize("shape", [(1, 16000), (1, 16, 9, 9), (3, 9, 9), ()])
@pytest.mark.parametrize(
    "policy",
    [
        PrivacyPolicy(store="input", downscale=2),
        PrivacyPolicy(store="digest", crop=Box(left=0, top=0, width=1, height=1)),
    ],
)
def test_what_a_policy_cannot_be_applied_to_is_refused(policy: PrivacyPolicy, shape: tuple[int, ...]) -> None:
    spec = TensorSpec(name="sound", runtime_name="sound", shape=shape, dtype="uint8")
    with pytest.raises(NotAllowedError, match="input 'sound' is no picture"):
        redacted(policy, [np.zeros(shape, np.uint8)], [spec])


def test_a_box_that_is_not_inside_the_picture_is_refused() -> None:
    policy = PrivacyPolicy(store="input", crop=Box(left=1, top=0, width=4, height=4))
    with pytest.raises(NotAllowedError, match=r"not inside input 'x' of 4 × 4 pixels"):
        redacted(policy, [np.zeros((1, 3, 4, 4), np.uint8)], [picture(4, 4, channels_last=False)])
