"""TFLite models on LiteRT (`ai-edge-litert`), or on the interpreters that speak the same interface."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from edgewright.artifact.manifest import Dtype, Quantisation, TensorSpec
from edgewright.errors import ArtifactError

_INTERPRETERS = {
    "ai_edge_litert": ("ai_edge_litert.interpreter", "ai-edge-litert"),
    "tflite_runtime": ("tflite_runtime.interpreter", "tflite-runtime"),
    "tensorflow": ("tensorflow.lite.python.interpreter", "tensorflow"),
}


def interpreter_type(runtime: str) -> Any:
    """The interpreter's class of one of the runtimes for TFLite."""
    return importlib.import_module(_INTERPRETERS[runtime][0]).Interpreter


class LitertSession:
    """See `edgewright.runtime.session.Session`."""

    def __init__(self, path: Path, threads: int, runtime: str) -> None:
        package = _INTERPRETERS[runtime][1]
        try:
            self._interpreter = interpreter_type(runtime)(model_path=str(path), num_threads=threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0][:200]
            raise ArtifactError(
                f"is not a model that {package} can load ({reason})", where=str(path)
            ) from None
        self.runtime = f"{package} {version(package)}"
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self.inputs = tuple(_spec(detail) for detail in inputs)
        self.outputs = tuple(_spec(detail) for detail in outputs)
        self._turn = threading.Lock()
        self._input_indices = [int(detail["index"]) for detail in inputs]
        self._output_indices = [int(detail["index"]) for detail in outputs]

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        interpreter = self._interpreter
        with self._turn:  # an interpreter holds the tensors of one inference
            for index, array in zip(self._input_indices, inputs, strict=True):
                interpreter.set_tensor(index, array)
            interpreter.invoke()
            return [interpreter.get_tensor(index) for index in self._output_indices]


def _spec(detail: dict[str, Any]) -> TensorSpec:
    scale, zero_point = detail["quantization"]
    return TensorSpec(
        name=detail["name"],
        runtime_name=detail["name"],
        shape=tuple(int(axis) for axis in detail["shape"]),
        dtype=cast("Dtype", np.dtype(detail["dtype"]).name),
        quantisation=Quantisation(scale=float(scale), zero_point=int(zero_point)) if scale > 0 else None,
    )
