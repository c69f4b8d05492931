"""Which operators of a TFLite file an accelerator's delegate would take, by the rules that are published for it.

Nothing is delegated here: it is a prediction from tables (`edgewright_profiles/delegates/`), and the compiler or
driver has the last word.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edgewright_converters.tflite_structure import StructureOperator, TfliteStructure
from edgewright_profiles import Delegate

SOFTMAX_ELEMENTS = 16_000
"""Of the Edge TPU's softmax, at most."""


@dataclass(frozen=True)
class Placement:
    """Where one operator would run: on the accelerator, or on the processor with the reason."""

    operator: StructureOperator
    refusal: str | None


def placements(structure: TfliteStructure, delegate: Delegate) -> tuple[Placement, ...]:
    """Where each operator would run, in their order."""
    found: list[Placement] = []
    ended: str | None = None
    for operator in structure.operators:
        refusal = ended or _refusal(operator, delegate)
        # What turns the caller's floats into integers runs before, and ends nothing.
        first = operator.kind == "QUANTIZE" and all(placed.refusal for placed in found)
        if refusal and delegate.first_refusal_ends and not ended and not first:
            ended = f"it comes after {operator.kind} {operator.name}, and the compiler makes one part alone"
        found.append(Placement(operator, refusal))
    return tuple(found)


def mac_share(found: tuple[Placement, ...]) -> float:
    """The share of multiply-accumulates that would run on the accelerator; of operators where there are none."""
    macs = sum(placed.operator.macs for placed in found)
    if macs:
        return sum(placed.operator.macs for placed in found if not placed.refusal) / macs
    return sum(not placed.refusal for placed in found) / max(1, len(found))


def _refusal(operator: StructureOperator, delegate: Delegate) -> str | None:
    limits = delegate.limits.get(operator.kind)
    if limits is None:
        return f"{delegate.title} has no {operator.kind}"
    if any(not tensor.fixed for tensor in operator.live):
        return "the size of a tensor is not fixed"
    allowed = {*delegate.activation_dtypes, *(("float32",) if delegate.float_runs else ())}
    strange = next((t for t in operator.live if t.dtype not in allowed), None)
    if strange is not None and "any-dtype" not in limits and not _indices(operator, strange.dtype):
        return f"tensor {strange.name} is {strange.dtype}"
    large = delegate.large_dimensions
    if large is not None:
        wide = next((t for t in operator.live if any(n > 1 for n in t.shape[:-large])), None)
        if wide is not None:
            return f"only the {large} innermost dimensions of {wide.name} {list(wide.shape)} may exceed one"
    for tensor in operator.inputs:
        if tensor is not None and tensor.constant and len(tensor.scales) > 1 and any(tensor.zero_points):
            return f"constant {tensor.name} has a scale for each channel and a zero point"
    for limit in limits:
        if limit in _LIMITS and not _LIMITS[limit][0](operator):
            return _LIMITS[limit][1]
    return None


def _indices(operator: StructureOperator, dtype: str) -> bool:
    return operator.kind == "GATHER" and dtype == "int32"


def _constant(operator: StructureOperator, index: int) -> bool:
    tensor = operator.inputs[index] if len(operator.inputs) > index else None
    return tensor is not None and tensor.constant


def _spatial(operator: StructureOperator) -> bool:
    """Whether a mean or a padding leaves the batch and the channels alone."""
    source = operator.inputs[0]
    assert source is not None
    rank = len(source.shape)
    values = operator.integers(1)
    if operator.kind == "PAD":
        padded = [i for i in range(rank) if any(values[2 * i : 2 * i + 2])]
    else:
        padded = [axis % rank for axis in values]
    return rank == 4 and bool(values) and set(padded) <= {1, 2}


def _spares_batch(operator: StructureOperator) -> bool:
    if operator.kind == "PACK":
        return bool(operator.options.get("axis"))
    if operator.kind == "TRANSPOSE":
        return operator.integers(1)[:1] == (0,)
    axes = operator.integers(0 if operator.kind == "SPLIT" else 1)
    rank = max(1, len(operator.outputs[0].shape))
    return bool(axes) and all(axis % rank != 0 for axis in axes)


def _one_dimensional(operator: StructureOperator) -> bool:
    *outer, last = operator.outputs[0].shape or (1,)
    small = operator.kind != "SOFTMAX" or last <= SOFTMAX_ELEMENTS
    return all(n == 1 for n in outer) and small


def _plain_stride(operator: StructureOperator) -> bool:
    masks = ("ellipsisMask", "newAxisMask")
    return set(operator.integers(3)) == {1} and not any(operator.options.get(mask) for mask in masks)


def _same_grid(operator: StructureOperator) -> bool:
    source, result = operator.inputs[0], operator.outputs[0]
    assert source is not None
    return (source.scales, source.zero_points) == (result.scales, result.zero_points)


_LIMITS: Mapping[str, tuple[Callable[[StructureOperator], bool], str]] = {
    "biased": (lambda o: len(o.inputs) == 3 and o.inputs[2] is not None, "it has no bias"),
    "constant-second-input": (lambda o: len(o.inputs) < 2 or _constant(o, 1), "its second input is computed"),
    "constant-weight": (lambda o: _constant(o, 1), "its weight is computed"),
    "equal-dilations": (
        lambda o: o.options.get("dilationWFactor", 1) == o.options.get("dilationHFactor", 1),
        "its dilations differ",
    ),
    "float-input": (lambda o: o.live[0].dtype == "float32", "it is taken in float alone"),
    "no-batch-axis": (_spares_batch, "it moves the first dimension"),
    "no-fused-activation": (lambda o: not o.options.get("fusedActivationFunction"), "an activation is fused"),
    "one-dimensional": (_one_dimensional, "its result has more than one dimension, or is too long"),
    "rank-4-at-most": (lambda o: all(len(t.shape) <= 4 for t in o.live), "it has more than four dimensions"),
    "same-grid": (_same_grid, "its result has another scale than its input"),
    "spatial-axes": (_spatial, "it reaches beyond height and width"),
    "two-inputs-if-constant": (
        lambda o: len(o.inputs) == 2 or not any(t and t.constant for t in o.inputs),
        "it joins a constant to more than one tensor",
    ),
    "unit-strides": (_plain_stride, "its strides are not one"),
}
