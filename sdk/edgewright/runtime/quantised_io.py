"""Crossing between a caller's arrays and an artifact's raw ones: checks, axis order, quantisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright.artifact.manifest import TensorSpec
from edgewright.errors import DataError

Array = NDArray[Any]


def quantise(values: Array, spec: TensorSpec) -> Array:
    """Real values to the stored integers of `spec`: round half to even, saturate (ONNX QuantizeLinear)."""
    if spec.quantisation is None:
        return values.astype(spec.dtype, copy=False)
    limits = np.iinfo(np.dtype(spec.dtype))
    stored = np.divide(values, np.float32(spec.quantisation.scale), dtype=np.float32)
    np.rint(stored, out=stored)
    stored += np.float32(spec.quantisation.zero_point)
    np.clip(stored, limits.min, limits.max, out=stored)
    return stored.astype(spec.dtype)


def dequantise(stored: Array, spec: TensorSpec) -> Array:
    """Stored integers of `spec` to float32 real values."""
    if spec.quantisation is None:
        return stored
    shifted = np.subtract(stored, np.float32(spec.quantisation.zero_point), dtype=np.float32)
    shifted *= np.float32(spec.quantisation.scale)
    return shifted


def raw_input(value: Any, spec: TensorSpec) -> Array:
    """A caller's array, in the source model's axis order, as the artifact takes it.

    Float values are quantised where the artifact is quantised. Raises `DataError` for a wrong shape or dtype.
    """
    array = np.asarray(value)
    if array.shape != spec.source_shape:
        expected = list(spec.source_shape)
        raise DataError(f"input '{spec.name}' has shape {list(array.shape)}; it takes {expected}")
    if spec.permutation is not None:
        array = np.ascontiguousarray(array.transpose(spec.permutation))
    if array.dtype == np.dtype(spec.dtype) and spec.quantisation is None:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        taken = "float32" if spec.quantisation else spec.dtype
        if not np.can_cast(array.dtype, np.dtype(taken), "same_kind"):
            raise DataError(f"input '{spec.name}' has dtype {array.dtype}; it takes {taken}")
    elif spec.quantisation is None and not np.issubdtype(np.dtype(spec.dtype), np.floating):
        raise DataError(f"input '{spec.name}' has dtype {array.dtype}; it takes {spec.dtype}")
    return quantise(array, spec)


def real_output(raw: Array, spec: TensorSpec) -> Array:
    """An artifact's raw output as float32, in the source model's axis order."""
    real = dequantise(raw, spec)
    if spec.permutation is not None:
        real = real.transpose(np.argsort(spec.permutation))
    return real


def ordered_inputs(inputs: Any, specs: Sequence[TensorSpec]) -> list[Any]:
    """A caller's `{name: array}`, or one array where there is one input, in the order of `specs`.

    Raises `DataError` that names what is missing or unknown.
    """
    if not isinstance(inputs, Mapping):
        if len(specs) != 1:
            names = ", ".join(spec.name for spec in specs)
            raise DataError(f"the model has {len(specs)} inputs; pass a dict with {names}")
        return [inputs]
    wanted = [spec.name for spec in specs]
    if set(wanted) != set(inputs):
        given = ", ".join(sorted(map(str, inputs))) or "nothing"
        raise DataError(f"the model takes the inputs {', '.join(wanted)}; given: {given}")
    return [inputs[name] for name in wanted]
