"""What an inference is predicted to take on a profile, from the work that the float graph says it is."""

from __future__ import annotations

from dataclasses import dataclass

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


def predicted_latencies(
    profile: HardwareProfile, model_format: ModelFormat, work: Work | None
) -> tuple[LatencyFigure, ...]:
    """Float and INT8 on one thread of the profile; nothing where the work is not known."""
    if work is None:
        return ()
    runtime = profile.runtime_for(model_format)
    figures = []
    for precision in ("float32", "int8"):
        predicted = predict_latency(profile, work.held_in(precision), precision, threads=1)
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
