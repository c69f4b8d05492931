"""ONNX models on ONNX Runtime's CPU execution provider."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import onnxruntime as ort
from numpy.typing import NDArray

from edgewright.artifact.manifest import Dtype, TensorSpec
from edgewright.errors import ArtifactError

INT8_ALLOWED = "session.qdqisint8allowed"
"""On Arm, ONNX Runtime fuses operators with signed activations into integer kernels; on x86 it computes some of
them in float unless this is "1". With it, an artifact for Arm is executed here as it will be there."""
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
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry(INT8_ALLOWED, "1")
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
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


def _spec(argument: Any) -> TensorSpec:
    shape = tuple(axis if isinstance(axis, int) else 1 for axis in argument.shape)
    dtype = _DTYPES.get(argument.type)
    if dtype is None:
        raise ArtifactError(f"tensor '{argument.name}' has the type {argument.type}, which is not supported")
    return TensorSpec(name=argument.name, runtime_name=argument.name, shape=shape, dtype=dtype)
