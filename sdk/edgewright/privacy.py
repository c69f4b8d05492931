"""`PrivacyPolicy`: what of an input may leave a device's memory, and the pure functions that hold to it.

A device applies the policy before anything is written, hashed or sent. What a policy cannot be applied to is
refused, never let through: a box cannot be cut out of a sound. `restored` gives training an input of the model's
own shape again, with what was cut away as real nought.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from edgewright.artifact.manifest import ArtifactManifest, TensorSpec
from edgewright.contract import CONTRACT
from edgewright.errors import DataError

Array = NDArray[Any]
Pixels = Annotated[int, Field(ge=0)]
MOST_CHANNELS = 4
"""A picture has no more; what has is something else, of which a box would mean something else."""


class Box(BaseModel):
    """A part of a picture, in pixels of the model's input, from its top left corner."""

    model_config = CONTRACT
    left: Pixels
    top: Pixels
    width: Annotated[int, Field(gt=0)]
    height: Annotated[int, Field(gt=0)]


class PrivacyPolicy(BaseModel):
    """What may be kept of an input."""

    model_config = CONTRACT
    store: Literal["nothing", "digest", "input"] = Field(
        default="nothing",
        description="nothing: samples are only counted. digest: all but the input, of which only the SHA-256 of "
        "what would be stored. input: what is left of the input",
    )
    crop: Box | None = Field(
        default=None, description="all else of the picture is left out; None: nothing is"
    )
    downscale: int = Field(
        default=1, ge=1, le=64, description="side of the squares of pixels of which only the mean is kept"
    )
    drop_labels: tuple[str, ...] = Field(
        default=(), description="an input in which the model sees one of these classes is not kept at all"
    )


class NotAllowedError(DataError):
    """The policy lets nothing of this input through."""


def redacted(policy: PrivacyPolicy, inputs: Sequence[Array], specs: Sequence[TensorSpec]) -> list[Array]:
    """What the policy leaves of an artifact's raw inputs, as copies, in the order of `specs`.

    Raises `NotAllowedError` where it cannot be applied: an input that is no picture, a box outside it.
    """
    return [_redacted(policy, array, spec) for array, spec in zip(inputs, specs, strict=True)]


def restored(policy: PrivacyPolicy, stored: Array, spec: TensorSpec) -> Array:
    """A raw input of the artifact's own shape from what the policy left of it; its inverse where it left all."""
    if policy.crop is None and policy.downscale == 1:
        return stored
    axes, box = _picture(policy, spec)
    for axis, length in zip(axes, (box.height, box.width), strict=True):
        stored = np.repeat(stored, policy.downscale, axis=axis).take(range(length), axis=axis)
    nought = spec.quantisation.zero_point if spec.quantisation else 0
    whole = np.full(spec.shape, nought, stored.dtype)
    whole[_slices(axes, box, len(spec.shape))] = stored
    return whole


def _redacted(policy: PrivacyPolicy, array: Array, spec: TensorSpec) -> Array:
    if policy.crop is None and policy.downscale == 1:
        return array.copy()
    axes, box = _picture(policy, spec)
    part = array[_slices(axes, box, array.ndim)].copy()
    for axis in axes if policy.downscale > 1 else ():
        starts = np.arange(0, part.shape[axis], policy.downscale)
        lengths = np.diff(np.append(starts, part.shape[axis]))
        shape = [-1 if each == axis else 1 for each in range(part.ndim)]
        part = np.add.reduceat(part.astype(np.float64), starts, axis=axis) / lengths.reshape(shape)
    if part.dtype != array.dtype:
        part = (np.rint(part) if np.issubdtype(array.dtype, np.integer) else part).astype(array.dtype)
    return part


def _picture(policy: PrivacyPolicy, spec: TensorSpec) -> tuple[tuple[int, int], Box]:
    """The axes of rows and columns as the artifact holds them, and the box that is kept."""
    shape = spec.source_shape
    if len(shape) != 4 or not 1 <= shape[1] <= MOST_CHANNELS:
        raise NotAllowedError(
            f"input '{spec.name}' is no picture, which crop and downscale are for",
            remedy='leave them out of the policy, or choose store = "digest"',
        )
    axes = (2, 3) if spec.permutation is None else (spec.permutation.index(2), spec.permutation.index(3))
    height, width = shape[2], shape[3]
    box = policy.crop or Box(left=0, top=0, width=width, height=height)
    if box.left + box.width > width or box.top + box.height > height:
        raise NotAllowedError(
            f"the box of the crop is not inside input '{spec.name}' of {width} × {height} pixels"
        )
    return axes, box


def _slices(axes: tuple[int, int], box: Box, rank: int) -> tuple[slice, ...]:
    found = [slice(None)] * rank
    found[axes[0]] = slice(box.top, box.top + box.height)
    found[axes[1]] = slice(box.left, box.left + box.width)
    return tuple(found)


def stored_bytes(policy: PrivacyPolicy, manifest: ArtifactManifest) -> int:
    """Bytes of tensors that a sample of this model takes.

    Raises `NotAllowedError` where the policy cannot be applied to the model, so that nothing of it may be kept:
    its inputs are no pictures, or it does not know a class that the policy would drop.
    """
    classes = manifest.labels if manifest.postprocessing is not None else None
    unknown = [label for label in policy.drop_labels if label not in (classes or ())]
    if unknown:
        raise NotAllowedError(f"the model has no class '{unknown[0]}', which the policy would drop")
    nothing = [np.zeros(spec.shape, spec.dtype) for spec in manifest.inputs]
    left = sum(array.nbytes for array in redacted(policy, nothing, manifest.inputs))
    return left if policy.store == "input" else 0
