"""The two kinds of evidence of a change: counts of answers (`Counts`) and means of inputs (`Means`).

Each adds blocks up as plain sums, says how likely the data since a start is under a new distribution over how
likely it is under the old one, how much more successive blocks differ than independent samples would, and how
large a change is. Arrays end in the axis of the sums; all axes before that are devices and starts. `dispersion`
is a design effect: so many samples are worth one that is independent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgewright.telemetry.sketch import SMOOTHING
from edgewright_fleet.retraining.triggers.drift_test import DriftTest, StreamName

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Counts:
    """Samples by bin: top classes, or bins of confidence."""

    name: StreamName
    bins: int
    shift: float
    least: float

    @property
    def _strength(self) -> float:
        return max((self.bins - 1) / (4 * self.shift**2) - 1, 1.0)

    @property
    def dispersions(self) -> int:
        """One for all bins."""
        return 1

    def prior(self, before: Array) -> Array:
        """What `log_ratio` needs of the new distribution, and which depends on `before` alone."""
        share = (before + SMOOTHING) / (before.sum(-1, keepdims=True) + SMOOTHING * self.bins)
        around = self._strength * share
        return np.concatenate([around, log_gamma(around).sum(-1, keepdims=True)], axis=-1)

    def log_ratio(self, before: Array, total: Array, dispersion: Array, prior: Array | None = None) -> Array:
        """Log of the likelihood ratio of what came after `before`, which is in `total` as well.

        Old: Pólya's urn that holds what came before and Jeffreys' prior, so that a small reference says little.
        New: a Dirichlet prior around the old shares whose mean chi-squared distance from them is that of the
        shift that is hardest to see, 4 shift² (Cauchy–Schwarz: the least chi-squared of a total variation).
        """
        strength, prior = self._strength, self.prior(before) if prior is None else prior
        # Starts of before a restart, which the caller leaves out, hold more than there is now.
        old, after = before / dispersion + SMOOTHING, np.maximum(total - before, 0.0) / dispersion
        samples = _sum(after)
        # The sums of `old` and `after` together: the same for all starts, and so cheap.
        together = total / dispersion + SMOOTHING
        new = _sum(log_gamma(prior[..., :-1] + after)) - prior[..., -1]
        new += math.lgamma(strength) - log_gamma(strength + samples)
        held = _sum(old)
        urn = _sum(log_gamma(together)) - _sum(log_gamma(old))
        urn += log_gamma(held) - log_gamma(held + samples)
        ratio: Array = new - urn
        return ratio

    def differences(self, first: Array, second: Array) -> tuple[Array, Array]:
        """Pearson's chi-squared of two blocks, and its degrees of freedom."""
        n, m = first.sum(-1), second.sum(-1)
        both = first + second
        root = np.sqrt(np.divide(m, n, out=np.zeros_like(n), where=(n > 0) & (m > 0)))[..., None]
        inverse = np.divide(1.0, root, out=np.zeros_like(root), where=root > 0)
        terms = (root * first - inverse * second) ** 2
        squares = np.divide(terms, both, out=np.zeros_like(both), where=both > 0).sum(-1)
        freedom = np.where((n > 0) & (m > 0), np.maximum((both > 0).sum(-1) - 1.0, 0.0), 0.0)
        return squares[..., None], freedom[..., None]

    def effect(self, before: Array, after: Array, dispersion: Array) -> Array:
        """Population stability index less what chance alone gives (`sketch.expected_psi`), at least nought."""
        n, m = (np.maximum(x.sum(-1), 1e-9) for x in (before, after))
        p, q = ((x + SMOOTHING) / (x.sum(-1, keepdims=True) + SMOOTHING * self.bins) for x in (before, after))
        index = ((p - q) * np.log(p / q)).sum(-1)
        seen = np.maximum((before + after > 0).sum(-1) - 1, 0)
        effect: Array = np.maximum(index - seen * dispersion[..., 0] * (1 / n + 1 / m), 0.0)
        return effect


@dataclass(frozen=True)
class Means:
    """Means over samples of some figures of an input (level and spread of each channel).

    A row holds the samples, the sum of each figure and the sum of its square, of figures that were centred on
    a device's first block, so that squares of great means do not swallow what differs.
    """

    name: StreamName
    figures: int
    shift: float
    least: float

    @property
    def dispersions(self) -> int:
        """One a figure."""
        return self.figures

    def prior(self, before: Array) -> Array:
        """Nothing."""
        return before[..., :0]

    def log_ratio(self, before: Array, total: Array, dispersion: Array, _: Array | None = None) -> Array:
        """As of `Counts`: the mean of the figures' ratios, which is a martingale where each is.

        The figure's mean after a start, less that before it: normal around nought with the variance of both,
        and of a normal prior of the shift on top where it is new.
        """
        mean, variance = self._moments(before)
        after = total - before
        n = np.maximum(after[..., :1], 1e-9)
        squared = (after[..., 1 : 1 + self.figures] / n - mean) ** 2 / variance
        old = dispersion * (1 / np.maximum(before[..., :1], 1e-9) + 1 / n)
        new = old + self.shift**2
        each = 0.5 * (np.log(old / new) + squared * (1 / old - 1 / new))
        top = each.max(-1)
        ratio: Array = top + np.log(np.exp(each - top[..., None]).mean(-1))
        return np.where(after[..., 0] > 0, ratio, 0.0)

    def differences(self, first: Array, second: Array) -> tuple[Array, Array]:
        """Squared difference of the means of two blocks in units of its variance, by figure."""
        n, m = first[..., :1], second[..., :1]
        both = (n > 0) & (m > 0)
        mean, variance = self._moments(first)
        other, _ = self._moments(second)
        squares = np.where(
            both, (mean - other) ** 2 / variance / (1 / np.maximum(n, 1e-9) + 1 / np.maximum(m, 1e-9)), 0.0
        )
        return squares, np.where(both, 1.0, 0.0) * np.ones(self.figures)

    def effect(self, before: Array, after: Array, dispersion: Array) -> Array:
        """Greatest shift of a mean, in standard deviations over samples before."""
        mean, variance = self._moments(before)
        other, _ = self._moments(after)
        effect: Array = (np.abs(other - mean) / np.sqrt(variance)).max(-1)
        return effect

    def _moments(self, sums: Array) -> tuple[Array, Array]:
        n = np.maximum(sums[..., :1], 1e-9)
        mean = sums[..., 1 : 1 + self.figures] / n
        variance = sums[..., 1 + self.figures :] / n - mean**2
        # An input that never varied: the least change of it is one.
        return mean, np.maximum(variance, 1e-12 * (1 + mean**2))


Evidence = Counts | Means


def _sum(x: Array) -> Array:
    """Over the last axis, which is short: numpy's own is made for long ones."""
    return np.asarray(np.einsum("...i->...", x))


def log_gamma(x: Array) -> Array:
    """Log of the gamma function of numbers above nought, to 2e-9.

    Stirling's series with three terms, and for what is under 6 the recurrence back from x + 6 (Abramowitz and
    Stegun 1964, 6.1.15 and 6.1.40); numpy has none. In place, as most of its time goes into memory.
    """
    shape, x = x.shape, np.atleast_1d(x)
    small = x < 6.0
    z = np.where(small, x + 6.0, x)
    result: Array = np.log(z)
    result *= z - 0.5
    result -= z
    square = 1.0 / (z * z)
    series = square * (-1 / 1260)
    series += 1 / 360
    series *= square
    np.subtract(1 / 12, series, out=series)
    series /= z
    result += series
    result += 0.5 * math.log(2 * math.pi)
    if small.any():
        low = x[small]
        result[small] -= np.log(low * (low + 1) * (low + 2) * (low + 3) * (low + 4) * (low + 5))
    return result.reshape(shape)


def evidence_of(test: DriftTest, name: StreamName, width: int) -> Evidence:
    """What judges a stream whose rows hold `width` sums."""
    if name == "inputs":
        return Means(name, (width - 1) // 2, test.input_shift, test.input_shift)
    return Counts(name, width, test.shift, test.least_psi)
