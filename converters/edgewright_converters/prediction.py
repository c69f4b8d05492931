"""What an inference is predicted to take on a profile, from the work that the float graph says it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from edgewright.artifact.manifest import LatencyFigure, ModelFormat, Precision
from edgewright_converters.cost import operator_work
from edgewright_converters.export import ExportedGraph
from edgewright_profiles import HardwareProfile
from edgewright_profiles.cost import OperatorWork, predict_latency


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
    """What one operator is predicted to take where the profile runs the format; `work` is at a byte an element.

    On an accelerator that has float16, what is left in float is computed in that: TensorRT is built so.
    """
    accelerator = profile.accelerator_for(model_format)
    half = accelerator is not None and accelerator.float16_macs_per_s is not None
    precision: Literal["int8", "float16", "float32"] = "int8" if integer else "float16" if half else "float32"
    width = 1 if integer else np.dtype(precision).itemsize
    held = replace(
        work, weight_bytes=work.weight_bytes * width, activation_bytes=work.activation_bytes * width
    )
    return predict_latency(profile, (held,), precision, 1, accelerator).seconds


def predicted_latencies(
    profile: HardwareProfile, model_format: ModelFormat, work: Work | None
) -> tuple[LatencyFigure, ...]:
    """Float and INT8 on one thread of the profile, or on its accelerator; nothing where the work is not known."""
    if work is None:
        return ()
    runtime = profile.runtime_for(model_format)
    accelerator = profile.accelerator_for(model_format)
    figures = []
    for precision in ("float32", "int8"):
        predicted = predict_latency(profile, work.held_in(precision), precision, 1, accelerator)
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
