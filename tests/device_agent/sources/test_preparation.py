"""Messages from anywhere: each becomes an input of the right form or one line."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from device_agent.sources.conftest import PREPROCESSING, photo
from edgewright.errors import DataError, EdgewrightError
from edgewright.preprocessing import preprocess
from edgewright.runtime.model import Model
from edgewright.runtime.quantised_io import quantise
from edgewright_agent.sources.preparation import from_payload, from_picture, read_npy
from edgewright_agent.sources.source import SampleError

reusing = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)
numbers = st.sampled_from(["f2", "f4", "f8", "i1", "u1", "i8", "?", ">f4", ">i2"]).map(np.dtype)
finite: dict[str, Any] = {"allow_nan": False, "allow_infinity": False}


def npy(array: Any, *, allow_pickle: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=allow_pickle)
    return file.getvalue()


def encoded(pixels: Any, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@given(
    numbers.flatmap(
        lambda dtype: hnp.arrays(
            dtype, hnp.array_shapes(max_dims=3, min_side=0), elements=hnp.from_dtype(dtype, **finite)
        )
    ),
    st.booleans(),
)
def test_an_array_reads_back_as_it_was_saved(array: Any, fortran: bool) -> None:
    read = read_npy(npy(np.asfortranarray(array) if fortran else array))
    np.testing.assert_array_equal(read, array)
    assert read.dtype == array.dtype.newbyteorder("=")


@given(st.binary(max_size=300) | st.binary(max_size=200).map(lambda tail: b"\x93NUMPY\x01\x00" + tail))
def test_any_bytes_are_an_array_or_one_line(payload: bytes) -> None:
    try:
        read_npy(payload)
    except SampleError as error:
        assert "\n" not in str(error)


@given(st.integers(0, 200), st.integers(1, 255))
def test_any_changed_byte_is_an_array_or_one_line(position: int, change: int) -> None:
    payload = bytearray(npy(np.arange(12, dtype=np.float32).reshape(3, 4)))
    payload[position % len(payload)] ^= change
    try:
        read_npy(bytes(payload))
    except SampleError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (npy(np.array([{}], object), allow_pickle=True), "not numbers"),
        (npy(np.array(["a"])), "not numbers"),
        (npy(np.zeros(2, [("a", "f4")])), "not numbers"),
        (npy(np.zeros(4))[:-1], "a message holds 31 bytes for float64[4]"),
        (npy(np.zeros(4)) + b"!", "a message holds 33 bytes for float64[4]"),
        (npy(np.array([1.0, np.nan])), "NaN or infinity"),
        (b"", "no .npy file"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(payload: bytes, problem: str) -> None:
    with pytest.raises(SampleError) as caught:
        read_npy(payload)
    assert problem in str(caught.value)


def test_a_size_that_is_only_claimed_is_not_allocated() -> None:
    claim = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776, 1048576), }"
    payload = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(claim)) + claim + bytes(64)
    with pytest.raises(SampleError, match="holds 64 bytes"):
        read_npy(payload)


def test_real_values_are_quantised_with_and_without_a_batch_axis(plain_model: Model) -> None:
    real = np.array([0.0, 1.0, -200.0, 5.25], np.float32)
    for array in (real, real[np.newaxis], real[np.newaxis].astype(">f8")):
        row = from_payload(npy(array), "npy", plain_model)["x"]
        assert (row.dtype, row.tolist()) == (np.uint8, [[10, 12, 0, 20]])


@reusing
@given(st.binary(min_size=4, max_size=4))
def test_raw_bytes_are_the_input_itself(plain_model: Model, payload: bytes) -> None:
    assert from_payload(payload, "raw", plain_model)["x"].tobytes() == payload


@reusing
@given(st.sampled_from(["npy", "raw", "image"]), st.binary(max_size=100))
def test_any_message_is_an_input_or_one_line(photo_model: Model, kind: Any, payload: bytes) -> None:
    try:
        (row,) = from_payload(payload, kind, photo_model).values()
    except EdgewrightError as error:
        assert "\n" not in str(error)
    else:
        assert row.shape == photo_model.inputs[0].shape


@reusing
@given(
    st.sampled_from(["png", "jpeg", "bmp", "webp"]), st.integers(0, 400), st.integers(1, 255), st.booleans()
)
def test_any_damaged_image_is_an_input_or_one_line(
    photo_model: Model, kind: str, position: int, change: int, cut: bool
) -> None:
    payload = bytearray(encoded(photo(1), kind))
    payload[position] ^= change
    try:
        from_payload(bytes(payload[: position + 1] if cut else payload), "image", photo_model)
    except SampleError as error:
        assert "is not an image" in str(error) or "pixels, more than" in str(error)


def test_an_encoded_image_equals_the_file_and_the_pixels(tmp_path: Any, photo_model: Model) -> None:
    pixels = photo(7)
    payload = encoded(pixels, "png")
    (tmp_path / "a.png").write_bytes(payload)
    expected = quantise(preprocess(tmp_path / "a.png", PREPROCESSING)[np.newaxis], photo_model.inputs[0])
    for row in (from_payload(payload, "image", photo_model), from_picture(pixels, photo_model)):
        np.testing.assert_array_equal(row["image"], expected)


def test_a_small_file_that_unpacks_to_a_gigabyte_is_refused_before_it_does(photo_model: Model) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 20000, 4000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )
    with pytest.raises(SampleError, match="20000 × 4000 pixels, more than the 64000000 that are taken"):
        from_payload(bomb, "image", photo_model)


def test_a_shape_that_does_not_fit_is_the_models_failure(plain_model: Model) -> None:
    with pytest.raises(DataError, match=r"has shape \[5\]; it takes \[1, 4\]") as caught:
        from_payload(npy(np.zeros(5)), "npy", plain_model)
    assert not isinstance(caught.value, SampleError)
