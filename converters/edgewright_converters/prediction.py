"""What an inference is predicted to take on a profile, from the work that the float graph says it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgewright.artifact.manifest import Arithmetic, LatencyFigure, ModelFormat, Precision
from edgewright_converters.cost import operator_work
from edgewright_converters.export import ExportedGraph
from edgewright_profiles import HardwareProfile
from edgewright_profiles.cost import OperatorWork, PredictedLatency, predict_latency


@dataclass(frozen=True)
class Work:
    """The operators of one inference, held in INT8 and in float32."""

    int8: tuple[OperatorWork, ...]
    float32: tuple[OperatorWork, ...]

    @property
    def macs(self) -> int:
        return sum(operator.macs for operator in self.int8)

    def held_in(self, precision: Precision) -> tuple[OperatorWork, ...]:
        """The work as an artifact of that precision does it."""
        return self.int8 if precision == "int8" else self.float32


def work_of(graph: ExportedGraph) -> Work:
    """Count the work on an optimised float ONNX graph."""
    return Work(operator_work(graph, 1), operator_work(graph, np.dtype(np.float32).itemsize))


def seconds_of(
    work: OperatorWork, profile: HardwareProfile, model_format: ModelFormat, *, integer: bool
) -> float:
    """What one operator is predicted to take where the profile runs the format; `work` is at a byte an element."""
    return latency_of((work,), profile, model_format, "int8", int8_share=float(integer)).seconds


def latency_of(
    work: Sequence[OperatorWork],
    profile: HardwareProfile,
    model_format: ModelFormat,
    precision: Arithmetic,
    int8_share: float = 1.0,
) -> PredictedLatency:
    """One inference on one thread of the profile, or on its accelerator; `work` is held in `precision`.

    Of INT8, `int8_share` is the part of the multiply-accumulates that runs in it, and the same part of the time is
    predicted so; the rest is predicted in float. On an accelerator that has float16, what is left in float is
    computed in that: TensorRT is built so.
    """
    accelerator = profile.accelerator_for(model_format)
    whole = predict_latency(profile, work, precision, 1, accelerator)
    if precision != "int8" or int8_share >= 1.0:
        return whole
    half = accelerator is not None and accelerator.float16_macs_per_s is not None
    left: Arithmetic = "float16" if half else "float32"
    width = np.dtype(left).itemsize
    held = [
        replace(one, weight_bytes=one.weight_bytes * width, activation_bytes=one.activation_bytes * width)
        for one in work
    ]
    rest = predict_latency(profile, held, left, 1, accelerator)

    def mixed(integers: float, floats: float) -> float:
        return int8_share * integers + (1 - int8_share) * floats

    return PredictedLatency(
        mixed(whole.seconds, rest.seconds),
        mixed(whole.low_seconds, rest.low_seconds),
        mixed(whole.high_seconds, rest.high_seconds),
        mixed(whole.memory_bound_share, rest.memory_bound_share),
    )


def predicted_latencies(
    profile: HardwareProfile, model_format: ModelFormat, work: Work | None, int8_share: float = 1.0
) -> tuple[LatencyFigure, ...]:
    """Float and INT8 on one thread of the profile, or on its accelerator; nothing where the work is not known.

    INT8 is that of an artifact which computes `int8_share` of its multiply-accumulates so.
    """
    if work is None:
        return ()
    runtime = profile.runtime_for(model_format)
    figures = []
    precisions: tuple[Arithmetic, ...] = ("float32", "int8")
    for precision in precisions:
        predicted = latency_of(work.held_in(precision), profile, model_format, precision, int8_share)
        figures.append(
            LatencyFigure(
                how="predicted",
                where=profile.name,
                runtime=runtime.name,
                precision=precision,
                threads=1,
                p50_s=predicted.seconds,
                low_s=predicted.low_seconds,
                high_s=predicted.high_seconds,
                samples=0,
            )
        )
    return tuple(figures)
