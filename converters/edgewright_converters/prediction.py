"""What an inference is predicted to take on a profile, from the work that the float graph says it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgewright.artifact.manifest import Arithmetic, LatencyFigure, ModelFormat, Precision, computed_in
from edgewright_converters.cost import operator_work
from edgewright_converters.export import ExportedGraph
from edgewright_profiles import HardwareProfile
from edgewright_profiles.cost import OperatorWork, PredictedLatency, predict_latency

_WEIGHT_BYTES: Mapping[Precision, float] = {
    "float32": 4.0,
    "float16": 2.0,
    "int8": 1.0,
    "int8-dynamic": 1.0,
    "int8-weights": 1.0,
    "int4-weights": 0.5,
}
"""An element of a weight, as it lies in the file and is read from memory."""


def work_of(graph: ExportedGraph) -> tuple[OperatorWork, ...]:
    """Count the work on an optimised float ONNX graph, at a byte an element."""
    return operator_work(graph, 1)


def seconds_of(
    work: OperatorWork, profile: HardwareProfile, model_format: ModelFormat, *, integer: bool
) -> float:
    """What one operator is predicted to take where the profile runs the format; `work` is at a byte an element."""
    return latency_of((work,), profile, model_format, "int8", int8_share=float(integer)).seconds


def latency_of(
    work: Sequence[OperatorWork],
    profile: HardwareProfile,
    model_format: ModelFormat,
    precision: Precision,
    int8_share: float = 1.0,
) -> PredictedLatency:
    """One inference of an artifact of that precision on one thread of the profile, or on its accelerator.

    `work` is at a byte an element.

    Of INT8, `int8_share` is the part of the multiply-accumulates that runs in it, and the same part of the time is
    predicted so; the rest is predicted in float. On an accelerator that has float16, what is left in float is
    computed in that: TensorRT is built so.
    """
    accelerator = profile.accelerator_for(model_format)
    arithmetic = computed_in(precision, model_format)
    weights = _WEIGHT_BYTES[precision]
    activations = 4.0 if precision == "int8-dynamic" else float(np.dtype(arithmetic).itemsize)
    whole = predict_latency(profile, _held(work, weights, activations), arithmetic, 1, accelerator)
    if arithmetic != "int8" or int8_share >= 1.0:
        return whole
    half = accelerator is not None and accelerator.float16_macs_per_s is not None
    left: Arithmetic = "float16" if half else "float32"
    width = np.dtype(left).itemsize
    rest = predict_latency(profile, _held(work, width, width), left, 1, accelerator)

    def mixed(integers: float, floats: float) -> float:
        return int8_share * integers + (1 - int8_share) * floats

    return PredictedLatency(
        mixed(whole.seconds, rest.seconds),
        mixed(whole.low_seconds, rest.low_seconds),
        mixed(whole.high_seconds, rest.high_seconds),
        mixed(whole.memory_bound_share, rest.memory_bound_share),
    )


def _held(work: Sequence[OperatorWork], weights: float, activations: float) -> list[OperatorWork]:
    """The same work with so many bytes an element."""
    return [
        replace(
            one,
            weight_bytes=round(one.weight_bytes * weights),
            activation_bytes=round(one.activation_bytes * activations),
        )
        for one in work
    ]


def predicted_latencies(
    profile: HardwareProfile,
    model_format: ModelFormat,
    precision: Precision,
    work: Sequence[OperatorWork] | None,
    int8_share: float = 1.0,
) -> tuple[LatencyFigure, ...]:
    """Float, and the artifact's precision where that is another, on one thread of the profile or its accelerator;
    nothing where the work is not known.

    INT8 is that of an artifact which computes `int8_share` of its multiply-accumulates so.
    """
    if work is None:
        return ()
    runtime = profile.runtime_for(model_format)
    figures = []
    precisions: dict[Precision, None] = {"float32": None, precision: None}
    for one in precisions:
        predicted = latency_of(work, profile, model_format, one, int8_share)
        figures.append(
            LatencyFigure(
                how="predicted",
                where=profile.name,
                runtime=runtime.name,
                precision=one,
                threads=1,
                p50_s=predicted.seconds,
                low_s=predicted.low_seconds,
                high_s=predicted.high_seconds,
                samples=0,
            )
        )
    return tuple(figures)
