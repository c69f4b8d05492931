"""`Session`: one model file loaded by one runtime, and the choice of the runtime that loads it."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from edgewright.artifact.manifest import ModelFormat, Precision, TensorSpec
from edgewright.errors import RuntimeUnavailableError

Array = NDArray[Any]

RUNTIMES: dict[ModelFormat, tuple[str, ...]] = {
    "onnx": ("onnxruntime",),
    # In order of preference: tensorflow's interpreter is bit-identical to ai-edge-litert's; tflite-runtime's
    # last release has its reference kernels and is right for static INT8 alone.
    "tflite": ("ai_edge_litert", "tflite_runtime", "tensorflow"),
}
_PACKAGES = {
    "onnxruntime": "onnxruntime",
    "ai_edge_litert": "ai-edge-litert",
    "tflite_runtime": "tflite-runtime",
    "tensorflow": "tensorflow",
}


class Session(Protocol):
    """A loaded model. Arrays are raw: the file's own names, dtypes and axis order.

    Any thread may call it; whether two inferences run at once is the runtime's affair.
    """

    @property
    def runtime(self) -> str:
        """The runtime's package and version, as `onnxruntime 1.32.0`."""
        ...

    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """One inference: arrays in the order of `inputs`, results in the order of `outputs`."""
        ...


def runtimes_for(model_format: ModelFormat, precision: Precision) -> tuple[str, ...]:
    """The runtimes that execute such a model correctly, preferred first.

    Measured: tflite-runtime 2.14 gives wrong answers without an error for dynamic INT8; it is shipped nothing
    that is newer than static INT8 and float.
    """
    runtimes = RUNTIMES[model_format]
    if precision in ("float32", "int8"):
        return runtimes
    return tuple(runtime for runtime in runtimes if runtime != "tflite_runtime")


def installed_runtimes(model_format: ModelFormat) -> tuple[str, ...]:
    """The import names of the runtimes for a format that are installed here, preferred first."""
    return tuple(name for name in RUNTIMES[model_format] if importlib.util.find_spec(name) is not None)


def import_runtime(model_format: ModelFormat) -> None:
    """Import what `open_session` would load a model with, and no more."""
    if model_format == "onnx":
        importlib.import_module("edgewright.runtime.onnxruntime")
    elif runtimes := installed_runtimes(model_format):
        from edgewright.runtime.litert import interpreter_type

        interpreter_type(runtimes[0])


def open_session(
    path: Path, model_format: ModelFormat, *, threads: int = 1, allowed: Sequence[str] | None = None
) -> Session:
    """Load a model file with the first runtime that is installed and that the artifact allows.

    Raises `RuntimeUnavailableError` with what to install, `ArtifactError` for a file that is not a model.
    """
    for runtime in installed_runtimes(model_format):
        if allowed is not None and runtime not in allowed:
            continue
        if model_format == "onnx":
            from edgewright.runtime.onnxruntime import OnnxSession

            return OnnxSession(path, threads)
        from edgewright.runtime.litert import LitertSession

        return LitertSession(path, threads, runtime)
    wanted = _PACKAGES[(allowed or RUNTIMES[model_format])[0]]
    raise RuntimeUnavailableError(
        f"no runtime for {model_format} models is installed", where=str(path), remedy=f"pip install {wanted}"
    )
