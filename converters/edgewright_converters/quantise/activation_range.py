"""The range that each activation is quantised over, chosen for each tensor by the error that it leaves.

Candidates are those of the stock calibrators: true minimum and maximum; percentiles (Wu et al. 2020, "Integer
Quantization for Deep Learning Inference", section 5.2); least mean squared error (Choukroun et al. 2019,
"Low-bit Quantization of Neural Networks for Efficient Inference"); least Kullback-Leibler divergence (Migacz
2017, "8-bit Inference with TensorRT"). Each leaves rounding noise inside its range and clips what is outside;
the tensor's histogram tells both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgewright_converters.observation import BINS, TensorStatistics
from edgewright_converters.quantise.grid import STEPS, ActivationGrid

Array = NDArray[Any]
Method = Literal["min-max", "percentile", "mean squared error", "entropy"]
PERCENTILES = (99.9, 99.99, 99.999)
SHRINKS = np.linspace(0.3, 1.0, 29)
CLIPPING = 8.0
"""How much worse clipping is than rounding of the same power. Rounding errors are many and cancel out in the next
layer's sums; clipping bends few values, the strongest features, all one way, and more of them in data that
calibration did not show. Each tensor of EfficientNet-Lite0 taken alone, 16 photo crops: on photos of others the
ranges of least squares did 1.8 times the damage to the outputs that they did on the calibration photos, and half
as much again as ranges that keep 85 % of minimum to maximum."""
LEAST_GAIN = 1.05
"""A narrower range must leave this much less noise than minimum and maximum, which clip nothing in the field."""
_LEVELS = 128


@dataclass(frozen=True)
class ActivationRange:
    """The range chosen for a tensor, by which method, and the mean squared error that it and min-max leave."""

    low: float
    high: float
    method: Method
    error: float
    min_max_error: float

    @classmethod
    def over(cls, low: float, high: float) -> ActivationRange:
        """Minimum and maximum."""
        error = ActivationGrid.over(low, high).scale ** 2 / 12
        return cls(low, high, "min-max", error, error)


def choose_ranges(
    statistics: Mapping[str, TensorStatistics], histograms: Mapping[str, Array]
) -> dict[str, ActivationRange]:
    """The range with the least error for each tensor that has a histogram; min-max for the rest."""
    return {name: choose_range(*found.range, histograms.get(name)) for name, found in statistics.items()}


def choose_range(low: float, high: float, counts: Array | None) -> ActivationRange:
    """The best candidate for one tensor; `counts` holds its histogram over [low, high]."""
    if counts is None or counts.sum() == 0:
        return ActivationRange.over(low, high)
    whole = _error(low, high, low, high, counts)
    best = ActivationRange(low, high, "min-max", whole, whole)
    for method, candidate_low, candidate_high in _candidates(low, high, counts):
        error = _error(candidate_low, candidate_high, low, high, counts)
        if error * LEAST_GAIN < whole and error < best.error:
            best = ActivationRange(candidate_low, candidate_high, method, error, whole)
    return best


def _candidates(low: float, high: float, counts: Array) -> Iterator[tuple[Method, float, float]]:
    edges = np.linspace(low, high, BINS + 1)
    total = np.cumsum(counts)
    for percentile in PERCENTILES:
        tail = (1 - percentile / 100) / 2 * total[-1]
        first = int(np.searchsorted(total, tail))
        last = int(np.searchsorted(total, total[-1] - tail))
        yield "percentile", min(float(edges[first]), 0.0), max(float(edges[min(last + 1, BINS)]), 0.0)
    # A one-sided tensor (after ReLU) keeps its end at nought.
    for shrink_low in SHRINKS if low < -1e-6 * abs(high) else (1.0,):
        for shrink_high in SHRINKS if high > 1e-6 * abs(low) else (1.0,):
            yield "mean squared error", low * shrink_low, high * shrink_high
    shrink = _entropy_shrink(low, high, counts)
    yield "entropy", low * shrink, high * shrink


def _error(low: float, high: float, data_low: float, data_high: float, counts: Array) -> float:
    """Mean squared error of rounding to the grid over [low, high], clipping weighted by `CLIPPING`.

    From the centres of the histogram's bins.
    """
    grid = ActivationGrid.over(low, high)
    bottom, top = -grid.zero_point * grid.scale, (STEPS - grid.zero_point) * grid.scale
    centres = data_low + (np.arange(BINS) + 0.5) * ((data_high - data_low) / BINS)
    clipped = np.maximum(bottom - centres, 0.0) + np.maximum(centres - top, 0.0)
    inside = counts[clipped == 0].sum()
    return float((CLIPPING * (counts @ clipped**2) + inside * grid.scale**2 / 12) / counts.sum())


def _entropy_shrink(low: float, high: float, counts: Array) -> float:
    """The share of the range whose quantised histogram diverges least from the tensor's (Migacz 2017)."""
    centres = low + (np.arange(BINS) + 0.5) * ((high - low) / BINS)
    best, least = 1.0, np.inf
    for shrink in SHRINKS:
        inside = (centres >= low * shrink) & (centres <= high * shrink)
        kept = counts[inside].astype(np.float64)
        if kept.sum() == 0:
            continue
        reference = kept.copy()
        reference[0] += counts[centres < low * shrink].sum()
        reference[-1] += counts[centres > high * shrink].sum()
        groups = np.arange(len(kept)) * _LEVELS // len(kept)
        mass = np.bincount(groups, kept, _LEVELS)
        filled = np.bincount(groups, kept > 0, _LEVELS)
        quantised = np.where(kept > 0, (mass / np.maximum(filled, 1))[groups], 0.0)
        p, q = reference / reference.sum(), quantised / quantised.sum()
        both = (p > 0) & (q > 0)
        missing = p[(p > 0) & (q == 0)].sum()
        divergence = float((p[both] * np.log(p[both] / q[both])).sum() + missing * 10)
        if divergence < least:
            best, least = float(shrink), divergence
    return best
