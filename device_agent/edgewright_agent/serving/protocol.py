"""The Open Inference Protocol v2 as data: the body of a request to arrays, arrays to the body of an answer.

Pure: no socket, no model run. The fields are those of the Open Inference Protocol (KServe,
`open_inference_rest.yaml`) with Triton's binary tensor data extension: the JSON comes first, its length in the
HTTP header `Inference-Header-Content-Length`, then the tensors that have a `binary_data_size`, little-endian, one
after another.

One parameter of a request is ours: `raw`. By default it is true, and tensors are the artifact's own, as the
metadata shows them. With `"raw": false` they are those of the source model: floats in its shape, which the device
quantises, and dequantised floats in the answer.

Unknown fields are ignored, as the protocol has it; an unknown parameter is refused, as it would change the answer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgewright.artifact.manifest import TensorSpec
from edgewright.errors import DataError, first_violation

Array = NDArray[Any]

DATATYPES = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
_NAMES = {dtype: name for name, dtype in DATATYPES.items()}
REMEMBERED, REMEMBERED_BYTES = 8, 4096
"""Documents that are parsed once, and how long one may be: with binary data a client sends the same again and
again, and parsing is most of what the protocol costs."""
_JSON_TYPES: dict[str, set[type]] = {"b": {bool}, "i": {int}, "u": {int}, "f": {int, float}}
_JSON_KINDS = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}
"""The kinds of numpy array that JSON values may make for each kind of tensor: no 1.5 for an integer."""


class _Tolerant(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", protected_namespaces=())


class _Exact(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", protected_namespaces=())


class _InputParameters(_Exact):
    binary_data_size: Annotated[int, Field(ge=0)] | None = None


class _Input(_Tolerant):
    name: str
    datatype: str
    shape: Annotated[list[Annotated[int, Field(ge=0, lt=1 << 31)]], Field(max_length=32)]
    parameters: _InputParameters = _InputParameters()
    data: Any = None


class _OutputParameters(_Exact):
    binary_data: bool | None = None


class _Output(_Tolerant):
    name: str
    parameters: _OutputParameters = _OutputParameters()


class _RequestParameters(_Exact):
    binary_data_output: bool = False
    raw: bool = True


class _Request(_Tolerant):
    id: str | None = None
    parameters: _RequestParameters = _RequestParameters()
    inputs: Annotated[list[_Input], Field(min_length=1)]
    outputs: list[_Output] = []


@dataclass(frozen=True)
class InferenceRequest:
    """What a client asks for; `binary` says of each output that it wants whether it goes behind the JSON."""

    id: str | None
    inputs: dict[str, Array]
    binary: dict[str, bool]
    raw: bool


@dataclass(frozen=True)
class InferenceResponse:
    """The parts of an answer's body: JSON, and the binary tensors behind it."""

    json: bytes
    tensors: tuple[bytes, ...]


def datatype_of(dtype: np.dtype[Any] | str) -> str:
    """The protocol's name of a numpy dtype."""
    return _NAMES[np.dtype(dtype)]


def read_request(
    document: bytes, tensors: bytes | memoryview, outputs: Sequence[TensorSpec]
) -> InferenceRequest:
    """Read a request of a model with these outputs from its JSON and the bytes behind. Raises `DataError`."""
    request = _remembered(document) if len(document) <= REMEMBERED_BYTES else _parsed(document)
    inputs: dict[str, Array] = {}
    offset = 0
    for tensor in request.inputs:
        if tensor.name in inputs:
            raise DataError("is given twice", where=f"input '{tensor.name}'")
        size = tensor.parameters.binary_data_size
        if size is None:
            inputs[tensor.name] = _from_json(tensor)
        else:
            inputs[tensor.name] = _from_binary(tensor, tensors, offset, size)
            offset += size
    if offset != len(tensors):
        raise DataError(
            f"{len(tensors)} bytes follow the JSON; the inputs' binary_data_size add up to {offset}"
        )
    parameters = request.parameters
    default = parameters.binary_data_output
    if request.outputs:
        asked = {output.name: output.parameters.binary_data for output in request.outputs}
        binary = {name: default if wish is None else wish for name, wish in asked.items()}
    else:
        binary = {spec.name: default for spec in outputs}
    specs = {spec.name: spec for spec in outputs}
    for name, wish in binary.items():
        if name not in specs:
            raise DataError(f"the model has no output '{name}'; it has {', '.join(specs)}")
        if specs[name].dtype == "float16" and not wish:
            raise DataError(f"output '{name}' is FP16, which JSON has not", remedy="ask for binary_data")
    return InferenceRequest(request.id, inputs, binary, parameters.raw)


def write_response(
    request: InferenceRequest, outputs: Mapping[str, Array], *, model: str, version: str
) -> InferenceResponse:
    """Write the outputs that a request wants. Raises `DataError` where JSON cannot hold one."""
    tensors = []
    described = []
    for name, binary in request.binary.items():
        array = outputs[name]
        entry: dict[str, Any] = {
            "name": name,
            "datatype": datatype_of(array.dtype),
            "shape": array.shape,
        }
        if binary:
            tensors.append(array.tobytes())
            entry["parameters"] = {"binary_data_size": array.nbytes}
        elif array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DataError(
                f"output '{name}' is not finite, which JSON has not", remedy="ask for binary_data"
            )
        else:
            entry["data"] = array.ravel().tolist()
        described.append(entry)
    document = {"model_name": model, "model_version": version, "outputs": described}
    if request.id is not None:
        document["id"] = request.id
    return InferenceResponse(_to_json(document).encode(), tuple(tensors))


def _parsed(document: bytes) -> _Request:
    try:
        return _Request.model_validate_json(document)
    except ValidationError as violation:
        place, problem = first_violation(violation)
        raise DataError(problem, where=place or "request") from None


_to_json = json.JSONEncoder(separators=(",", ":")).encode
_remembered = lru_cache(REMEMBERED)(_parsed)


def _dtype(tensor: _Input) -> np.dtype[Any]:
    dtype = DATATYPES.get(tensor.datatype)
    if dtype is None:
        known = ", ".join(DATATYPES)
        raise DataError(f"input '{tensor.name}' has the datatype {tensor.datatype[:40]!r}; known are {known}")
    return dtype


def _from_binary(tensor: _Input, tensors: bytes | memoryview, offset: int, size: int) -> Array:
    dtype = _dtype(tensor)
    where = f"input '{tensor.name}'"
    if tensor.data is not None:
        raise DataError("has both data and binary_data_size", where=where)
    needed = math.prod(tensor.shape) * dtype.itemsize
    if size != needed:
        raise DataError(
            f"binary_data_size is {size}; {tensor.datatype}{tensor.shape} takes {needed}", where=where
        )
    if offset + size > len(tensors):
        missing = offset + size - len(tensors)
        raise DataError(f"the body ends {missing} bytes before it", where=where)
    array = np.frombuffer(tensors, dtype, math.prod(tensor.shape), offset) if size else np.empty(0, dtype)
    # A tensor behind one of odd length does not start where the processor wants it.
    return (array if array.flags.aligned else array.copy()).reshape(tensor.shape)


def _from_json(tensor: _Input) -> Array:
    dtype = _dtype(tensor)
    where = f"input '{tensor.name}'"
    if tensor.data is None:
        raise DataError("has neither data nor binary_data_size", where=where)
    if tensor.datatype == "FP16":
        raise DataError("is FP16, which JSON has not", where=where, remedy="send it as binary data")
    try:
        array = np.asarray(tensor.data)
    except ValueError:
        raise DataError("data is not a list of numbers, flat or nested as the shape", where=where) from None
    if array.size != math.prod(tensor.shape):
        raise DataError(
            f"data has {array.size} elements; the shape {tensor.shape} takes another number", where=where
        )
    if array.size == 0:
        return np.empty(tensor.shape, dtype)
    if array.dtype.kind not in _JSON_KINDS[dtype.kind]:
        # Integers that no one integer type of NumPy holds arrive as rounded floats, or as objects.
        array = np.asarray(tensor.data, dtype=object)
        if not {type(value) for value in array.flat} <= _JSON_TYPES[dtype.kind]:
            raise DataError(f"data holds what is not {tensor.datatype}", where=where)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            raise DataError(f"data holds a number beyond {tensor.datatype}", where=where)
    try:
        with np.errstate(over="raise"):
            return array.astype(dtype).reshape(tensor.shape)
    except (FloatingPointError, OverflowError):
        raise DataError(f"data holds a number beyond {tensor.datatype}", where=where) from None
