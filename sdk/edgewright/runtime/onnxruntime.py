"""ONNX models on ONNX Runtime's CPU execution provider."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernelError

from edgewright.artifact.manifest import Dtype, TensorSpec
from edgewright.errors import ArtifactError

_INT8_ALLOWED = "session.qdqisint8allowed"
"""On Arm, ONNX Runtime fuses operators with signed activations into integer kernels; on x86 it computes some of
them in float unless this is "1". With it, an artifact for Arm is executed here as it will be there."""
_NO_SATURATION = "session.x64quantprecision"
"""On x86 without VNNI, ONNX Runtime adds products of unsigned activations and signed weights in pairs of 16 bits,
which saturate, unless this is "1". Elsewhere it would slow them down (2.7 times, a convolution of 64 channels)."""
_TWO_PRODUCTS = (
    b'\x08\x05\x12\x00:V\n\x18\n\x01x\n\x01w\x12\x01y"\rMatMulInteger\x12\x01g*\r\x08\x02\x08\x01\x10\x03*\x02\x7f\x7fB\x01w'
    b"Z\x13\n\x01x\x12\x0e\n\x0c\x08\x02\x12\x08\n\x02\x08\x01\n\x02\x08\x02b\x13\n\x01y\x12\x0e\n\x0c\x08\x06\x12\x08\n\x02\x08\x01\n\x02\x08\x01B\x04\n\x00\x10\n"
)
"""An ONNX model: `MatMulInteger` of uint8[1, 2] and int8 [[127], [127]]."""
_DTYPES: dict[str, Dtype] = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


class OnnxSession:
    """See `edgewright.runtime.session.Session`. A dynamic axis is reported as 1."""

    def __init__(self, path: Path, threads: int) -> None:
        try:
            self._session = inference_session(str(path), session_options(threads))
        except Exception as error:  # noqa: BLE001 - the binding raises a class of its own for each status code
            reason = str(error).splitlines()[0][:200]
            raise ArtifactError(
                f"is not a model that ONNX Runtime can load ({reason})", where=str(path)
            ) from None
        self.runtime = f"onnxruntime {ort.__version__}"
        self.inputs = tuple(_spec(argument) for argument in self._session.get_inputs())
        self.outputs = tuple(_spec(argument) for argument in self._session.get_outputs())
        self._input_names = [spec.runtime_name for spec in self.inputs]
        self._output_names = [spec.runtime_name for spec in self.outputs]

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        feed = dict(zip(self._input_names, inputs, strict=True))
        return cast("list[NDArray[Any]]", self._session.run(self._output_names, feed))


def session_options(threads: int) -> ort.SessionOptions:
    """What `inference_session` takes, for so many threads."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry(_INT8_ALLOWED, "1")
    if _sums_saturate():
        options.add_session_config_entry(_NO_SATURATION, "1")
    return options


def inference_session(model: str | bytes, options: ort.SessionOptions) -> ort.InferenceSession:
    """A session that computes the same integers as on any other processor. Raises what ONNX Runtime does."""
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except NoKernelError:
        # Signed activations do not saturate; the option makes their weights unsigned, and there is no such kernel.
        options.add_session_config_entry(_NO_SATURATION, "0")
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@functools.cache
def _sums_saturate() -> bool:
    """Whether ONNX Runtime's sums of products do on this processor, as it says itself."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(_TWO_PRODUCTS, options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.full((1, 2), 255, np.uint8)})
    return int(found[0, 0]) != 2 * 255 * 127


def _spec(argument: Any) -> TensorSpec:
    shape = tuple(axis if isinstance(axis, int) else 1 for axis in argument.shape)
    dtype = _DTYPES.get(argument.type)
    if dtype is None:
        raise ArtifactError(f"tensor '{argument.name}' has the type {argument.type}, which is not supported")
    return TensorSpec(name=argument.name, runtime_name=argument.name, shape=shape, dtype=dtype)
