"""Intervals for what is counted on a test set, and how many samples would settle what one leaves open.

It owns the formulas with their sources. It knows no model and no verdict: `comparison` counts, `gate` judges.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgewright.artifact.manifest import Difference, Proportion

Z_95 = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""
Z_POWER = 0.8416212335729143
"""The 80 % quantile: a sample size is enough four times in five, not just on average."""
BATCHES = 20
"""Of a series, each still long enough to know little of the one before: more are not better (Law 2015)."""
REASONABLE_SAMPLES = 1_000_000
"""Nobody labels more; what would take more is as good as undecidable."""


def proportion(hits: int, samples: int) -> Proportion:
    """A share with its 95 % score interval."""
    low, high = score_interval(hits / samples, samples)
    return Proportion(value=hits / samples, low=low, high=high, samples=samples)


def score_interval(share: float, samples: float, z: float = Z_95) -> tuple[float, float]:
    """The score interval of a share, at 95 % unless `z` says otherwise. `samples` may be an effective number.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    z2 = z**2
    centre = (share + z2 / (2 * samples)) / (1 + z2 / samples)
    half = z / (1 + z2 / samples) * math.sqrt(share * (1 - share) / samples + z2 / (4 * samples**2))
    # At 0 and 1 the formula's own bound is exact but for rounding.
    low = 0.0 if share == 0 else max(0.0, centre - half)
    high = 1.0 if share == 1 else min(1.0, centre + half)
    return min(low, share), max(high, share)


def paired_difference(*, both: int, lost: int, gained: int, neither: int) -> Difference:
    """The share right by the second model minus that by the first on the same samples, with a 95 % interval.

    `both` samples are right by both models, `lost` by the first alone, `gained` by the second alone.
    """
    n = both + lost + gained + neither
    low, high = paired_interval(both=both, lost=lost, gained=gained, neither=neither)
    return Difference(value=(gained - lost) / n, low=low, high=high, samples=n, lost=lost, gained=gained)


def paired_interval(
    *, both: float, lost: float, gained: float, neither: float, z: float = Z_95
) -> tuple[float, float]:
    """The interval of `paired_difference`, at 95 % unless `z` says otherwise; counts may be effective ones.

    Newcombe 1998, "Improved confidence intervals for the difference between binomial proportions based on paired
    data", method 10 (score intervals with the correlation of the pairs).
    """
    n = both + lost + gained + neither
    p1, p2 = min(1.0, (both + gained) / n), min(1.0, (both + lost) / n)
    product = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    if product == 0:
        phi = 0.0
    else:
        covariance = both * neither - gained * lost
        # Newcombe's continuity correction, for positive covariance only.
        corrected = max(covariance - n / 2, 0.0) if covariance > 0 else float(covariance)
        phi = corrected / math.sqrt(product)
    delta = (gained - lost) / n
    (low1, high1), (low2, high2) = score_interval(p1, n, z), score_interval(p2, n, z)
    l1, u1, l2, u2 = p1 - low1, high1 - p1, p2 - low2, high2 - p2
    low = delta - math.sqrt(max(0.0, l1**2 - 2 * phi * l1 * u2 + u2**2))
    high = delta + math.sqrt(max(0.0, u1**2 - 2 * phi * u1 * l2 + l2**2))
    return max(-1.0, low), min(1.0, high)


def paired_difference_of(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Difference:
    """`paired_difference` from what was right by the first and by the second, sample by sample."""
    return paired_difference(
        both=int(np.sum(first & second)),
        lost=int(np.sum(first & ~second)),
        gained=int(np.sum(~first & second)),
        neither=int(np.sum(~first & ~second)),
    )


def samples_to_decide_difference(change: Difference, limit: float) -> int | None:
    """How many samples would put the whole interval of `change` on one side of `limit`, in shares.

    (z_95 + z_power)² (p_d - d²) / (d - limit)², with p_d the share of discordant samples and d the difference
    observed: Connor 1987, "Sample size for testing differences in proportions for the paired-sample design"
    (the variance), with the distance to a limit in place of that to nought, as in Lu and Bean 1995, "On the
    sample size for one-sided equivalence of sensitivities based upon McNemar's test". Where nothing or next to
    nothing is discordant, the score interval of the two shares decides instead: z_95² / |d - limit|. None where
    that is more than `REASONABLE_SAMPLES`: the difference sits at the limit.
    """
    margin = abs(change.value - limit)
    discordant = ((change.lost or 0) + (change.gained or 0)) / change.samples
    return samples_to_decide(margin, discordant - change.value**2, Z_95**2, change.samples)


def samples_to_decide_share(share: Proportion, limit: float) -> int | None:
    """How many samples would bring the upper end of the interval of `share` under `limit`; None where none do.

    (z_95 + z_power)² p (1 - p) / (limit - p)², the normal approximation (Fleiss, Levin and Paik 2003, "Statistical
    methods for rates and proportions", section 2.3), and for p = 0 what Wilson's interval takes: z_95² (1 -
    limit) / limit.
    """
    if share.value >= limit:
        return None
    variance = share.value * (1 - share.value)
    return samples_to_decide(limit - share.value, variance, Z_95**2 * (1 - limit), share.samples)


def samples_to_decide(margin: float, variance: float, floor: float, seen: float) -> int | None:
    """How many samples would bring an interval that holds a limit to one side of it; None where none would.

    `margin` is the distance to the limit, `variance` that of one sample, `floor` over the margin what the interval
    takes where nothing varies, `seen` the samples so far.
    """
    # Less than one sample in so many: nothing that can be counted, and its square may be nought.
    if margin * REASONABLE_SAMPLES < 1:
        return None
    needed = max((Z_95 + Z_POWER) ** 2 * variance / margin**2, floor / margin)
    # What is open now stays so at least until the interval has shrunk by 1 + z_power / z_95: twice the samples.
    needed = max(needed, (1 + Z_POWER / Z_95) ** 2 * seen)
    return math.ceil(needed) if needed <= REASONABLE_SAMPLES else None


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The median with the ends of its 95 % interval, whatever the distribution of `values` is.

    The interval lies between two order statistics of ranks n/2 ± z_95 √n/2: Conover 1999, "Practical
    nonparametric statistics", section 3.2. Fewer than six values have none: then it is their whole range.
    """
    ordered = sorted(values)
    n = len(ordered)
    median = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    half = Z_95 * math.sqrt(n) / 2
    low, high = math.floor(n / 2 - half), math.ceil(n / 2 + half)
    return median, ordered[max(0, low - 1)], ordered[min(n - 1, high)]


def median_interval_in_turn(values: Sequence[float]) -> tuple[float, float, float]:
    """`median_interval` of values taken one after another, of which neighbours are alike.

    As independent values they would promise far too much. The interval is that of the medians of `BATCHES`
    consecutive parts: batch means, Law 2015, "Simulation modeling and analysis", section 9.5.3.
    """
    median, *_ = median_interval(values)
    parts = np.array_split(np.asarray(values), min(BATCHES, len(values)))
    _, low, high = median_interval([float(np.median(part)) for part in parts])
    return median, min(low, median), max(high, median)
