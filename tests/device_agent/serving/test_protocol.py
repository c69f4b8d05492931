from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from edgewright.artifact.manifest import TensorSpec
from edgewright.errors import DataError
from edgewright_agent.serving.protocol import DATATYPES, datatype_of, read_request, write_response

OUTPUTS = (
    TensorSpec(name="scores", runtime_name="s", shape=(1, 3), dtype="int8"),
    TensorSpec(name="half", runtime_name="h", shape=(2,), dtype="float16"),
)
ARRAYS = st.sampled_from(list(DATATYPES.values())).flatmap(
    lambda dtype: npst.arrays(dtype, npst.array_shapes(min_dims=0, min_side=0, max_side=4))
)


def tensor(array: np.ndarray, name: str = "x", **fields: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype_of(array.dtype), "shape": array.shape, **fields}


def binary(array: np.ndarray, name: str = "x") -> dict[str, Any]:
    return tensor(array, name, parameters={"binary_data_size": array.nbytes})


def read(document: Any, tensors: bytes = b"") -> Any:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return read_request(text, tensors, OUTPUTS)


def read_one(**fields: Any) -> Any:
    x = {"name": "x", "datatype": "UINT8", "shape": [2], "data": [1, 2], **fields}
    return read({"inputs": [x], "outputs": [{"name": "scores"}]})


WANTED: dict[str, Any] = {"outputs": [{"name": "scores"}]}


@given(st.lists(ARRAYS, min_size=1, max_size=3))
def test_binary_tensors_of_every_datatype_arrive_bit_for_bit_and_aligned(arrays: list[np.ndarray]) -> None:
    named = {f"x{i}": array for i, array in enumerate(arrays)}
    document = {"inputs": [binary(array, name) for name, array in named.items()], **WANTED}
    request = read(document, b"".join(array.tobytes() for array in arrays))
    for name, array in named.items():
        got = request.inputs[name]
        assert (got.dtype, got.shape, got.tobytes()) == (array.dtype, array.shape, array.tobytes())
        assert got.flags.aligned


@given(ARRAYS.filter(lambda array: array.dtype != np.float16 and np.isfinite(array).all()), st.booleans())
@example(np.array([2**63, 0], np.uint64), False)
def test_json_tensors_arrive_exactly_flat_or_nested(array: np.ndarray, flat: bool) -> None:
    data = array.ravel().tolist() if flat else array.tolist()
    got = read({"inputs": [tensor(array, data=data)], **WANTED}).inputs["x"]
    assert (got.dtype, got.shape) == (array.dtype, array.shape)
    assert np.array_equal(got, array)


@pytest.mark.parametrize(
    ("datatype", "data", "problem"),
    [
        ("INT64", [2**63, -1], "beyond INT64"),
        ("UINT64", [2**64, 0], "beyond UINT64"),
        ("UINT64", [2**63, 0.5], "not UINT64"),
        ("FP32", [2**70, 10**400], "beyond FP32"),
    ],
)
def test_integers_that_no_one_type_holds_are_refused_for_what_they_are(
    datatype: str, data: list[Any], problem: str
) -> None:
    x = {"name": "x", "datatype": datatype, "shape": [2], "data": data}
    with pytest.raises(DataError, match=problem):
        read({"inputs": [x], **WANTED})


def test_a_float_tensor_takes_integers_of_any_length() -> None:
    x = {"name": "x", "datatype": "FP64", "shape": [2], "data": [2**70, 0.5]}
    assert read({"inputs": [x], **WANTED}).inputs["x"].tolist() == [2.0**70, 0.5]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
TENSORS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["x", "y"]) | JSON,
        "datatype": st.sampled_from([*DATATYPES, "BYTES"]) | JSON,
        "shape": st.lists(st.integers(0, 4), max_size=3) | JSON,
        "data": st.lists(st.integers(-300, 300), max_size=8) | JSON,
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-1, 40)}) | JSON,
    },
)
REQUESTS = st.fixed_dictionaries(
    {"inputs": st.lists(TENSORS, max_size=3) | JSON},
    optional={"id": JSON, "parameters": JSON, "outputs": JSON},
)


@given(
    REQUESTS.map(lambda document: json.dumps(document).encode()) | st.binary(max_size=60),
    st.binary(max_size=40),
)
def test_whatever_comes_is_read_or_refused_in_one_line(document: bytes, tensors: bytes) -> None:
    try:
        read(document, tensors)
    except DataError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"datatype": "BYTES"}, "input 'x' has the datatype 'BYTES'; known are BOOL, UINT8"),
        ({"datatype": "FP16"}, "input 'x': is FP16, which JSON has not; send it as binary data"),
        ({"data": None}, "input 'x': has neither data nor binary_data_size"),
        ({"data": [1, 256]}, "data holds a number beyond UINT8"),
        ({"data": [1, -1]}, "data holds a number beyond UINT8"),
        ({"data": [1, 1.5]}, "data holds what is not UINT8"),
        ({"data": [1, None]}, "data holds what is not UINT8"),
        ({"data": [True, False]}, "data holds what is not UINT8"),
        ({"data": ["1", "2"]}, "data holds what is not UINT8"),
        ({"data": [[1], [2, 3]]}, "data is not a list of numbers, flat or nested as the shape"),
        ({"data": [1]}, "data has 1 elements; the shape [2] takes another number"),
        ({"datatype": "FP32", "data": [1, 1e39]}, "data holds a number beyond FP32"),
        ({"shape": [-2]}, "inputs.0.shape.0: Input should be greater than or equal to 0"),
        ({"shape": "2"}, "inputs.0.shape: Input should be"),
        ({"parameters": {"binary_data_size": 2}}, "has both data and binary_data_size"),
        (
            {"parameters": {"shared_memory_region": "r"}},
            "inputs.0.parameters.shared_memory_region: no such key",
        ),
    ],
)
def test_a_bad_input_is_named_with_what_is_wrong(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError) as caught:
        read_one(**fields)
    assert problem in str(caught.value)


X = np.arange(2, dtype=np.uint8)


@pytest.mark.parametrize(
    ("document", "tensors", "problem"),
    [
        ({"inputs": []}, b"", "inputs: List should have at least 1 item"),
        ({"inputs": [binary(X), binary(X)]}, b"abcd", "input 'x': is given twice"),
        ({"inputs": [binary(X)]}, b"a", "input 'x': the body ends 1 bytes before it"),
        (
            {"inputs": [binary(X)]},
            b"abc",
            "3 bytes follow the JSON; the inputs' binary_data_size add up to 2",
        ),
        ({"inputs": [binary(X) | {"shape": [3]}]}, b"ab", "binary_data_size is 2; UINT8[3] takes 3"),
        (
            {"inputs": [binary(X)], "outputs": [{"name": "score"}]},
            b"ab",
            "the model has no output 'score'; it has",
        ),
        ({"inputs": [binary(X)]}, b"ab", "output 'half' is FP16, which JSON has not; ask for binary_data"),
        ({"inputs": [binary(X)], "parameters": {"rwa": False}}, b"ab", "parameters.rwa: no such key"),
        (
            {"inputs": [binary(X)], "outputs": [{"name": "scores", "parameters": {"classification": 3}}]},
            b"ab",
            "outputs.0.parameters.classification: no such key",
        ),
        (b"", b"", "Invalid JSON"),
        (b"[" * 100_000, b"", "Invalid JSON: recursion limit"),
    ],
)
def test_a_bad_request_says_what_is_wrong(document: Any, tensors: bytes, problem: str) -> None:
    with pytest.raises(DataError) as caught:
        read(document, tensors)
    assert problem in str(caught.value)


def test_outputs_go_into_the_json_or_behind_it_as_asked() -> None:
    wishes = [{"name": "half", "parameters": {"binary_data": True}}, {"name": "scores"}]
    request = read({"id": "7", "inputs": [binary(X)], "outputs": wishes}, b"ab")
    outputs = {"scores": np.array([[1, -2, 3]], np.int8), "half": np.array([0.5, np.nan], np.float16)}
    response = write_response(request, outputs, model="sorter", version="1.0.0")
    assert json.loads(response.json) == {
        "model_name": "sorter",
        "model_version": "1.0.0",
        "id": "7",
        "outputs": [
            {"name": "half", "datatype": "FP16", "shape": [2], "parameters": {"binary_data_size": 4}},
            {"name": "scores", "datatype": "INT8", "shape": [1, 3], "data": [1, -2, 3]},
        ],
    }
    assert response.tensors == (outputs["half"].tobytes(),)


def test_all_outputs_come_in_binary_where_the_request_says_so_once() -> None:
    request = read({"inputs": [binary(X)], "parameters": {"binary_data_output": True}}, b"ab")
    assert request.binary == {"scores": True, "half": True}


def test_an_output_that_is_not_finite_is_not_written_as_json_that_nobody_may_read() -> None:
    request = read_one()
    outputs = {"scores": np.array([[1, np.inf, 3]], np.float32)}
    with pytest.raises(
        DataError, match="output 'scores' is not finite, which JSON has not; ask for binary_data"
    ):
        write_response(request, outputs, model="sorter", version="1.0.0")
