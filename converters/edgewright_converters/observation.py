"""`TensorStatistics`: what each tensor of a float graph takes on over the calibration data.

Two passes, since a histogram needs its range first; both stream the samples, so memory does not grow with
them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright.errors import DataError
from edgewright_converters.execution import Execution, side_by_side
from edgewright_converters.float_graph import attribute

Array = NDArray[Any]
BINS = 2048
"""As ONNX Runtime's and TensorRT's calibrators have: a bin is an eighth of an 8-bit step."""
HISTOGRAM_VALUES = 65_536
"""Values of a tensor that one sample adds to its histogram; more cost time and say no more."""


NEGLIGIBLE = 1 / 512
"""Half a step of an 8-bit softmax: what all scores below the floor of a row may weigh together."""


@dataclass(frozen=True)
class TensorStatistics:
    """Minimum, maximum and mean square of each channel."""

    low: Array
    high: Array
    mean_square: Array
    floor: float = -np.inf
    """What lies below is nought after the softmax that takes the tensor: masked, or of no weight."""

    @property
    def range(self) -> tuple[float, float]:
        """True minimum and maximum of the whole tensor, or of what matters of it."""
        return max(float(self.low.min()), self.floor), float(self.high.max())


def observe(
    execution: Execution, samples: Iterable[Mapping[str, Array]], where: str
) -> dict[str, TensorStatistics]:
    """Statistics of every float tensor. Raises `DataError` where a tensor becomes infinite or NaN."""
    graph = execution.graph
    wanted = set(graph.float_tensors)
    softmax = {n.input[0]: attribute(n, "axis", -1) for n in graph.nodes if n.op_type == "Softmax"}

    def look(sample: Mapping[str, Array]) -> dict[str, TensorStatistics]:
        seen: dict[str, TensorStatistics] = {}

        def visit(name: str, value: Array) -> None:
            if name in wanted and value.size:
                axis = graph.channel_axes[name]
                rows = (
                    np.moveaxis(value, axis, 0).reshape(value.shape[axis], -1)
                    if value.ndim
                    else value.reshape(1, 1)
                )
                power = np.einsum("ij,ij->i", rows, rows) / rows.shape[1]
                floor = _floor(value, softmax[name]) if name in softmax else -np.inf
                seen[name] = TensorStatistics(
                    rows.min(axis=1), rows.max(axis=1), power.astype(np.float64), floor
                )

        execution.run(sample, visit)
        return seen

    low: dict[str, Array] = {}
    high: dict[str, Array] = {}
    power: dict[str, Array] = {}
    floor: dict[str, float] = {}
    count = 0
    for seen in side_by_side(look, samples):
        count += 1
        for name, found in seen.items():
            low[name] = np.minimum(low.get(name, found.low), found.low)
            high[name] = np.maximum(high.get(name, found.high), found.high)
            power[name] = power.get(name, 0.0) + found.mean_square
            floor[name] = min(floor.get(name, np.inf), found.floor)
    for name in low:
        # A NaN or an infinity at either end; or a width beyond float32, as is what is computed of it.
        if not float(high[name].max()) - float(low[name].min()) <= np.finfo(np.float32).max:
            problem = f"the calibration data drives tensor '{name}' to infinity"
            remedy = (
                "look for outliers in the data, mask attention by a large number in place of infinity, or ask for "
                "--precision int8-dynamic, which needs no ranges"
            )
            raise DataError(problem, where=where, remedy=remedy)
    return {name: TensorStatistics(low[name], high[name], power[name] / count, floor[name]) for name in low}


def _floor(scores: Array, axis: int) -> float:
    """Below it all n scores of any row together have e^floor · n <= `NEGLIGIBLE` of the weight of its largest."""
    least_peak = float(scores.max(axis=axis).min())
    return least_peak - math.log(scores.shape[axis] / NEGLIGIBLE)


def histograms(
    execution: Execution,
    samples: Iterable[Mapping[str, Array]],
    statistics: Mapping[str, TensorStatistics],
) -> dict[str, Array]:
    """Counts in `BINS` equal bins over each quantised tensor's own range; none of the graph's outputs.

    An output's largest value is often its point (the winning class, the surest box): it is never clipped.
    """
    counts = {
        name: np.zeros(BINS, np.int64)
        for name, found in statistics.items()
        if name in execution.graph.quantised_tensors
        and name not in execution.graph.shown
        and found.range[1] > found.range[0]
    }

    def look(sample: Mapping[str, Array]) -> dict[str, Array]:
        seen: dict[str, Array] = {}

        def visit(name: str, value: Array) -> None:
            if name in counts:
                low, high = statistics[name].range
                # An odd stride walks through all columns of a tensor whose width is even.
                flat = value.reshape(-1)[:: max(1, value.size // HISTOGRAM_VALUES) | 1]
                bins = ((flat - low) * (BINS / (high - low))).astype(np.int64)
                seen[name] = np.bincount(np.clip(bins, 0, BINS - 1), minlength=BINS)

        execution.run(sample, visit)
        return seen

    for seen in side_by_side(look, samples):
        for name, found in seen.items():
            counts[name] += found
    return counts
