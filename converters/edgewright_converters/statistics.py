"""Intervals for what is counted on a test set: shares of samples, and the paired difference of two models."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright.artifact.manifest import Difference, Proportion

Z_95 = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""


def proportion(hits: int, samples: int) -> Proportion:
    """A share with its 95 % score interval.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    share, z2 = hits / samples, Z_95**2
    centre = (share + z2 / (2 * samples)) / (1 + z2 / samples)
    half = Z_95 / (1 + z2 / samples) * math.sqrt(share * (1 - share) / samples + z2 / (4 * samples**2))
    # At 0 and 1 the formula's own bound is exact but for rounding.
    low = 0.0 if hits == 0 else max(0.0, centre - half)
    high = 1.0 if hits == samples else min(1.0, centre + half)
    return Proportion(value=share, low=min(low, share), high=max(high, share), samples=samples)


def paired_difference(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Difference:
    """The share right by `second` minus that by `first` on the same samples, with a 95 % interval.

    Newcombe 1998, "Improved confidence intervals for the difference between binomial proportions based on
    paired data", method 10 (score intervals with the correlation of the pairs).
    """
    n = len(first)
    both = int(np.sum(first & second))
    only_second = int(np.sum(~first & second))
    only_first = int(np.sum(first & ~second))
    neither = n - both - only_second - only_first
    p1, p2 = proportion(both + only_second, n), proportion(both + only_first, n)
    product = (both + only_second) * (only_first + neither) * (both + only_first) * (only_second + neither)
    if product == 0:
        phi = 0.0
    else:
        covariance = both * neither - only_second * only_first
        # Newcombe's continuity correction, for positive covariance only.
        corrected = max(covariance - n / 2, 0.0) if covariance > 0 else float(covariance)
        phi = corrected / math.sqrt(product)
    delta = p1.value - p2.value
    l1, u1, l2, u2 = p1.value - p1.low, p1.high - p1.value, p2.value - p2.low, p2.high - p2.value
    low = delta - math.sqrt(max(0.0, l1**2 - 2 * phi * l1 * u2 + u2**2))
    high = delta + math.sqrt(max(0.0, u1**2 - 2 * phi * u1 * l2 + l2**2))
    return Difference(value=delta, low=max(-1.0, low), high=min(1.0, high), samples=n)


def sqnr_db(reference: NDArray[Any], actual: NDArray[Any]) -> float:
    """Signal to quantisation noise ratio, decibels, capped at 200 where the noise is nought."""
    signal = float(np.sum(np.square(reference, dtype=np.float64)))
    noise = float(np.sum(np.square(reference.astype(np.float64) - actual)))
    if noise == 0.0:
        return 200.0
    if signal == 0.0:
        return -200.0
    return float(np.clip(10.0 * math.log10(signal / noise), -200.0, 200.0))
