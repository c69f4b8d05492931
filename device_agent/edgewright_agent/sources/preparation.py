"""From what was captured to a model's raw inputs: as the manifest describes it, quantised by the artifact's input.

What comes from outside is read here and nowhere else: no pickle, nothing allocated for a size that was only said.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright.artifact.manifest import TensorSpec
from edgewright.errors import DataError
from edgewright.preprocessing import preprocess
from edgewright.runtime.model import Model
from edgewright.runtime.quantised_io import raw_input
from edgewright_agent.feed_config import Payload
from edgewright_agent.sources.source import RawInputs, SampleError

MAX_PIXELS = 64_000_000
"""Of an image in a message: unpacked it takes 192 MB."""


def from_picture(
    picture: Path | bytes | NDArray[np.uint8], model: Model, *, max_pixels: int | None = None
) -> RawInputs:
    """An image as the model's one input. Raises `SampleError`, `DataError`, `RuntimeUnavailableError`."""
    spec = _one_input(model)
    how = model.manifest.preprocessing if model.manifest else None
    if how is None:
        raise DataError(
            "the model's manifest describes no preprocessing of images",
            remedy="convert it from a folder of images with a preprocessing.json",
        )
    try:
        pixels = preprocess(picture, how, max_pixels=max_pixels)
    except DataError as error:
        raise SampleError(str(error)) from None
    return {spec.name: _fitted(pixels, spec)}


def from_payload(payload: bytes, kind: Payload, model: Model) -> RawInputs:
    """A message as the model's one input. Raises as `from_picture` does."""
    if kind == "image":
        return from_picture(payload, model, max_pixels=MAX_PIXELS)
    spec = _one_input(model)
    if kind == "npy":
        return {spec.name: _fitted(read_npy(payload), spec)}
    dtype = np.dtype(spec.dtype)
    size = int(np.prod(spec.shape)) * dtype.itemsize
    if len(payload) != size:
        raise SampleError(f"a raw message holds {len(payload)} bytes; the artifact's input is {size}")
    values = np.frombuffer(payload, dtype.newbyteorder("<")).astype(dtype).reshape(spec.shape)
    return {spec.name: _finite(values)}


def read_npy(payload: bytes) -> NDArray[Any]:
    """An array of numbers as `numpy.save` writes it (versions 1 and 2 of the format). Raises `SampleError`."""
    file = io.BytesIO(payload)
    try:
        version = np.lib.format.read_magic(file)
        header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = header(file)
    except Exception as error:  # noqa: BLE001 - the header is parsed as Python, with all that this may raise
        raise SampleError(f"a message is no .npy file ({type(error).__name__})") from None
    if dtype.kind not in "fiub":
        raise SampleError(f"a message holds {dtype}, not numbers")
    count, left = 1, memoryview(payload)[file.tell() :]
    for axis in shape:
        count *= axis  # of Python's own integers, which do not overflow
    if min(shape, default=0) < 0 or count * dtype.itemsize != len(left):
        raise SampleError(f"a message holds {len(left)} bytes for {dtype}{list(shape)}")
    values = np.frombuffer(left, dtype).reshape(shape, order="F" if fortran else "C")
    return _finite(values.astype(dtype.newbyteorder("="), copy=False))


def _one_input(model: Model) -> TensorSpec:
    if len(model.inputs) != 1:
        names = ", ".join(spec.name for spec in model.inputs)
        raise DataError(f"the source gives one input; the model takes {names}")
    return model.inputs[0]


def _finite(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise SampleError("a message holds NaN or infinity")
    return values


def _fitted(values: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    # A model with a batch axis of 1 takes a sample with that axis or without.
    whole = spec.source_shape[:1] == (1,) and values.shape == spec.source_shape[1:]
    return raw_input(values[np.newaxis] if whole else values, spec)
