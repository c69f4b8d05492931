from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from edgewright.errors import DataError
from edgewright_converters import array_file
from edgewright_converters.array_file import array_batches

DTYPES = st.sampled_from(["<f4", ">f4", "f8", "f2", "i8", ">i2", "u1", "?"])


@st.composite
def stored_arrays(draw: st.DrawFn) -> dict[str, NDArray[Any]]:
    """Arrays of one length, in either memory order and any byte order."""
    length = draw(st.integers(1, 40))
    arrays = {}
    for name in draw(st.sets(st.sampled_from(["x", "y", "left_input"]), min_size=1)):
        rest = draw(hnp.array_shapes(min_dims=0, max_dims=3, max_side=5))
        shape = (length, *rest) if draw(st.booleans()) else (length,)
        array = draw(hnp.arrays(draw(DTYPES), shape))
        arrays[name] = np.asfortranarray(array) if draw(st.booleans()) else array
    return arrays


@given(stored_arrays(), st.booleans(), st.integers(1, 200))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_read_in_steps_are_what_numpy_loads(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arrays: dict[str, Any],
    compressed: bool,
    step: int,
) -> None:
    path = tmp_path / "data.npz"
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    monkeypatch.setattr(array_file, "STEP_BYTES", step)
    batches = list(array_batches(path))
    with np.load(path) as loaded:
        assert set(loaded.files) == set(batches[0])
        for name in loaded.files:
            joined = np.concatenate([batch[name] for batch in batches])
            assert joined.dtype == loaded[name].dtype.newbyteorder("=")
            np.testing.assert_array_equal(joined, loaded[name])


@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_is_the_one_input(tmp_path: Path, order: Any) -> None:
    array = np.asarray(np.arange(24, dtype=np.float32).reshape(6, 4), order=order)
    np.save(tmp_path / "data.npy", array)
    (batch,) = array_batches(tmp_path / "data.npy")
    np.testing.assert_array_equal(batch["x"], array)


def test_steps_are_small_however_big_the_file(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", np.zeros((3000, 1024), np.float32))
    sizes = [batch["x"].nbytes for batch in array_batches(tmp_path / "data.npy")]
    assert len(sizes) > 8
    assert max(sizes) <= array_file.STEP_BYTES


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 torn", b"\x93NUMPY not", b"\x93NUMPY\x01\x00\x05\x00{'a'}"]
)
@pytest.mark.parametrize("name", ["data.npz", "data.npy"])
def test_file_of_no_arrays_is_refused(tmp_path: Path, content: bytes, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}: is not an \.npz or \.npy file.*numpy\.savez"):
        next(array_batches(path))


def test_pickled_objects_are_refused_unread(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="plain arrays"):
        next(array_batches(tmp_path / "data.npz"))


@pytest.mark.parametrize("name", ["data.npz", "data.npy"])
def test_file_torn_in_the_middle_says_from_where(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    array = np.random.default_rng(0).random((800, 1024), np.float32)
    if name == "data.npy":
        np.save(path, array)
        path.write_bytes(path.read_bytes()[: array.nbytes // 2])
    else:
        np.savez(path, x=array)
        content = bytearray(path.read_bytes())
        content[array.nbytes // 2] ^= 255
        path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"is torn at sample \d+ or after") as caught:
        for _ in array_batches(path):
            pass
    assert "\n" not in str(caught.value)


def test_member_that_is_no_array_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
        archive.writestr("readme.txt", "not an array")
    with pytest.raises(DataError, match="plain arrays"):
        next(array_batches(tmp_path / "data.npz"))


def test_unequal_lengths_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", a=np.zeros((3, 2)), b=np.zeros((4, 2)))
    with pytest.raises(DataError, match=r"same number of samples \(a: 3, b: 4\)"):
        next(array_batches(tmp_path / "data.npz"))


def test_size_that_no_memory_holds_is_refused(tmp_path: Path) -> None:
    header = b"{'descr': '<f4', 'fortran_order': True, 'shape': (1000000000000, 8), }".ljust(118)
    (tmp_path / "data.npy").write_bytes(b"\x93NUMPY\x01\x00\x76\x00" + header + bytes(64))
    with pytest.raises(DataError, match="more memory than there is"):
        next(array_batches(tmp_path / "data.npy"))
